"""Darknet's layers as a quantised network has them: what leaves a layer lies on its grid."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from yolo_dist.compress.quantization.activations import ActivationQuantizer
from yolo_dist.compress.quantization.config import EndBits, QuantizationConfig
from yolo_dist.compress.quantization.elementwise import elementwise
from yolo_dist.compress.quantization.grid import lay_grid
from yolo_dist.compress.quantization.layout import laid_out
from yolo_dist.compress.quantization.schemes import CHANNEL_SHAPE, QuantizedWeights
from yolo_dist.darknet.cfg import Avgpool, Convolutional, Depthwise, Route, Shortcut, SqueezeExcite
from yolo_dist.darknet.layers import Addition, Concatenation, Convolution, SqueezeExcitation

CLAMPS = (nn.Identity, nn.ReLU, nn.ReLU6)
"""Activations that are an end of the grid; all others are looked up in a table."""
TABLE_BITS = 8
LARGEST_BIAS_BITS = 32
FLOAT_BITS = 32
SMALLEST_FOLD = 1e-8


@dataclass(frozen=True)
class DeployedConvolution:
    """A convolution without batch normalisation: Σ (steps − zero point)·scale·x + bias.

    Attributes:
        steps: whole numbers, float32 [O, I, h, w].
        zero_point: of each filter, whole numbers in float32 [O].
        scale: of each filter, float32 [O]; negative where γ is and batch normalisation is not folded.
        bias: float32 [O].
    """

    steps: Tensor
    zero_point: Tensor
    scale: Tensor
    bias: Tensor


class QuantizedConvolution(Convolution):
    """A convolution that computes with quantised weights.

    Attributes:
        before: quantiser of what an activation that needs a table reads; None for clamps.
        output: quantiser of what leaves the layer; None where a head reads it, which gets the accumulators' precision.
        weight_bits: bits of the weights; None leaves them as they are.
    """

    def __init__(
        self,
        layer: Convolutional | Depthwise,
        in_channels: int,
        config: QuantizationConfig,
        weight_bits: EndBits,
        feeds_head: bool,
    ) -> None:
        super().__init__(layer, in_channels)
        self.config = config
        self.weight_bits = None if weight_bits == "float" else weight_bits
        linear = isinstance(self.activation, nn.Identity)
        if not linear:
            self.activation.inplace = False  # type: ignore[assignment]  # what it reads is looked at again
        self.before = None if isinstance(self.activation, CLAMPS) else table_quantizer(config)
        self.output = None if feeds_head else output_quantizer(config, linear)

    def forward(self, features: Tensor) -> Tensor:
        """[B, in, H, W] on a grid → [B, filters, H', W'] on this layer's."""
        bias = self.conv.bias
        features = self.conv._conv_forward(features, self.weight(), None if bias is None else self._rounded(bias))
        if self.norm is not None:
            features = self.norm(features)
            if self.config.bias_bits < LARGEST_BIAS_BITS:
                folded = self._folded_bias()
                features = features + (self._rounded(folded) - folded).detach()[:, None, None]
        return elementwise(self._activate, features)

    def _activate(self, features: Tensor) -> Tensor:
        if self.before is not None:
            features = self.before(features)
        features = self.activation(features)
        return features if self.output is None else self.output(features)

    def weight(self) -> Tensor:
        """The weights that are computed with, differentiable."""
        if self.weight_bits is None:
            return self.conv.weight
        fold = self._fold()
        values = self._quantized(fold).values
        return values if fold is None else values / fold

    def deployed(self) -> DeployedConvolution:
        """The layer as it is computed once training is over.

        Raises:
            ValueError: its weights are not quantised.
        """
        if self.weight_bits is None:
            raise ValueError("weights that stay float have no steps")
        with torch.no_grad():
            fold = self._fold()
            quantized = self._quantized(fold)
            channels = len(self.conv.weight)
            scale = quantized.scale.flatten().expand(channels).clone()
            if self.norm is not None and fold is None:
                scale *= self._norm_factor()
            bias = self.conv.bias if self.norm is None else self._folded_bias()
            assert bias is not None
            zero_point = quantized.zero_point.flatten().expand(channels).clone()
            return DeployedConvolution(quantized.steps, zero_point, scale, self._rounded(bias).clone())

    @property
    def stored_bits(self) -> int:
        """Bits of its numbers where it is deployed: filters, biases, and the scales of filters."""
        filters, weights = len(self.conv.weight), self.conv.weight.numel()
        if self.weight_bits is None:
            return FLOAT_BITS * (weights + filters)
        own_scales = self.config.per_channel or (self.norm is not None and not self.config.fold_batchnorm)
        scales = filters if own_scales else 1
        return weights * self.weight_bits + filters * self.config.bias_bits + FLOAT_BITS * scales

    def _quantized(self, fold: Tensor | None) -> QuantizedWeights:
        assert self.weight_bits is not None
        weight = laid_out(self.conv.weight)
        if fold is not None:
            weight = weight * fold
        return self.config.quantize_weights(weight, self.weight_bits)

    def _fold(self) -> Tensor | None:
        """γ / σ [O, 1, 1, 1] by the running statistics, never 0; None where nothing is folded.

        Weights are quantised times this and divided by it again, so that batch normalisation can follow with the
        batch's statistics (Krishnamoorthi 2018, §3.2.2, without a second convolution).
        """
        if self.norm is None or not self.config.fold_batchnorm:
            return None
        factor = self._norm_factor().detach()
        sign = torch.where(factor < 0, -1.0, 1.0)
        return (sign * factor.abs().clamp_min(SMALLEST_FOLD)).view(CHANNEL_SHAPE)

    def _norm_factor(self) -> Tensor:
        assert self.norm is not None
        assert self.norm.running_var is not None
        return self.norm.weight / torch.sqrt(self.norm.running_var + self.norm.eps)

    def _folded_bias(self) -> Tensor:
        assert self.norm is not None
        assert self.norm.running_mean is not None
        return self.norm.bias - self.norm.running_mean * self._norm_factor()

    def _rounded(self, bias: Tensor) -> Tensor:
        """The bias in `bias_bits`; at 32 bits it keeps the precision of the accumulators."""
        bits = self.config.bias_bits
        if bits >= LARGEST_BIAS_BITS or self.weight_bits is None:
            return bias
        largest = bias.detach().abs().amax()
        return lay_grid(-largest, largest, bits, "symmetric", self.config.power_of_two).snap(bias)


class QuantizedSqueezeExcitation(SqueezeExcitation):
    """Squeeze and excitation with every step on a grid."""

    def __init__(self, layer: SqueezeExcite, config: QuantizationConfig) -> None:
        super().__init__(layer)
        self.config = config
        self.pooled = output_quantizer(config, linear=True)
        self.hidden = output_quantizer(config, linear=False)
        self.before = table_quantizer(config)
        self.gate = ActivationQuantizer(max(config.activation_bits, TABLE_BITS), "positive", config.power_of_two)
        self.output = output_quantizer(config, linear=True)

    def forward(self, features: Tensor) -> Tensor:
        """[B, C, H, W] on a grid → the same shape on this layer's."""
        pooled = self.pooled(F.adaptive_avg_pool2d(features, 1))
        hidden = self.hidden(F.relu(F.conv2d(pooled, self.weight(self.fc1))))
        gate = self.gate(F.hardsigmoid(self.before(F.conv2d(hidden, self.weight(self.fc2)))))
        return self.output(features * gate)  # type: ignore[no-any-return]

    @property
    def stored_bits(self) -> int:
        """Bits of its numbers where it is deployed: weights, and their scales."""
        convolutions = (self.fc1, self.fc2)
        scales = sum(one.out_channels if self.config.per_channel else 1 for one in convolutions)
        weights = sum(one.weight.numel() for one in convolutions)
        return weights * self.config.weight_bits + FLOAT_BITS * scales

    def weight(self, convolution: nn.Conv2d) -> Tensor:
        """The quantised weights of one of the two, differentiable."""
        return self.quantized(convolution).values

    def quantized(self, convolution: nn.Conv2d) -> QuantizedWeights:
        """The quantised weights of one of the two."""
        return self.config.quantize_weights(laid_out(convolution.weight), self.config.weight_bits)


class QuantizedAddition(Addition):
    """A shortcut: its inputs lie on grids of their own, their sum is put on one."""

    def __init__(self, layer: Shortcut, config: QuantizationConfig) -> None:
        super().__init__(layer)
        linear = isinstance(self.activation, nn.Identity)
        self.before = None if isinstance(self.activation, CLAMPS) else table_quantizer(config)
        self.output = output_quantizer(config, linear)

    def forward(self, first: Tensor, *others: Tensor) -> Tensor:
        """Maps of one shape [B, C, H, W] → [B, C, H, W] on this layer's grid."""
        for other in others:
            first = first + other
        if self.before is not None:
            first = self.before(first)
        return self.output(self.activation(first))  # type: ignore[no-any-return]


class QuantizedConcatenation(Concatenation):
    """A route of several inputs: all are put on one grid."""

    def __init__(self, layer: Route, config: QuantizationConfig) -> None:
        super().__init__(layer)
        self.output = output_quantizer(config, linear=True)

    def forward(self, *inputs: Tensor) -> Tensor:
        """Maps [B, Cᵢ, H, W] → [B, ΣCᵢ / groups, H, W] on this layer's grid."""
        return self.output(super().forward(*inputs))  # type: ignore[no-any-return]


class QuantizedAveragePooling(nn.AdaptiveAvgPool2d):
    """An average over the map, put on a grid."""

    def __init__(self, _: Avgpool, config: QuantizationConfig) -> None:
        super().__init__(1)
        self.output = output_quantizer(config, linear=True)

    def forward(self, features: Tensor) -> Tensor:
        """[B, C, H, W] → [B, C, 1, 1] on this layer's grid."""
        return self.output(super().forward(features))  # type: ignore[no-any-return]


def output_quantizer(config: QuantizationConfig, linear: bool) -> ActivationQuantizer:
    """The quantiser of what leaves a layer; `linear` outputs may be negative whatever the scheme."""
    rule = config.sum_rule if linear else config.activation_rule
    return ActivationQuantizer(config.activation_bits, rule, config.power_of_two)


def table_quantizer(config: QuantizationConfig) -> ActivationQuantizer:
    """The quantiser of what an activation's table is indexed by: at least 8 bits, however few the outputs have."""
    return ActivationQuantizer(max(config.activation_bits, TABLE_BITS), "asymmetric", config.power_of_two)
