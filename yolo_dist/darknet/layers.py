"""One torch module for each layer type of a Darknet cfg."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from yolo_dist.darknet.cfg import (
    Activation,
    Avgpool,
    Convolutional,
    Depthwise,
    Dropout,
    Layer,
    Maxpool,
    Route,
    Shortcut,
    SqueezeExcite,
    Upsample,
    Yolo,
)

BATCH_NORM_EPSILON = 1e-5
BATCH_NORM_MOMENTUM = 0.03

ACTIVATIONS: dict[Activation, Callable[[], nn.Module]] = {
    "linear": nn.Identity,
    "leaky": lambda: nn.LeakyReLU(0.1, inplace=True),
    "relu": lambda: nn.ReLU(inplace=True),
    "relu6": lambda: nn.ReLU6(inplace=True),
    "h_swish": nn.Hardswish,
    "mish": nn.Mish,
    "swish": nn.SiLU,
    "logistic": nn.Sigmoid,
}


class Convolution(nn.Module):
    """Convolution (full, grouped or depthwise), then batch normalisation or a bias, then the activation."""

    def __init__(self, layer: Convolutional | Depthwise, in_channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(
            in_channels,
            layer.filters,
            layer.size,
            layer.stride,
            padding=layer.border * layer.dilation,
            dilation=layer.dilation,
            groups=layer.groups,
            bias=not layer.batch_normalize,
        )
        self.norm = (
            nn.BatchNorm2d(layer.filters, eps=BATCH_NORM_EPSILON, momentum=BATCH_NORM_MOMENTUM)
            if layer.batch_normalize
            else None
        )
        self.activation = ACTIVATIONS[layer.activation]()

    def forward(self, features: Tensor) -> Tensor:
        """[B, in, H, W] → [B, filters, H', W']."""
        features = self.conv(features)
        if self.norm is not None:
            features = self.norm(features)
        return self.activation(features)  # type: ignore[no-any-return]


class SqueezeExcitation(nn.Module):
    """Gates a map's channels by its global average (Hu et al. 2018, with the gate of MobileNetV3)."""

    def __init__(self, layer: SqueezeExcite) -> None:
        super().__init__()
        self.fc1 = nn.Conv2d(layer.filters, layer.hidden_channels, 1, bias=False)
        self.fc2 = nn.Conv2d(layer.hidden_channels, layer.filters, 1, bias=False)

    def forward(self, features: Tensor) -> Tensor:
        """[B, C, H, W] → the same, each channel times a gate in 0..1."""
        hidden = F.relu(self.fc1(F.adaptive_avg_pool2d(features, 1)))
        return features * F.hardsigmoid(self.fc2(hidden))


class MaxPooling(nn.Module):
    """Darknet's maximum pooling: the odd pixel of the padding goes right and bottom, and padding is −∞."""

    def __init__(self, layer: Maxpool) -> None:
        super().__init__()
        self.window, self.stride = layer.window, layer.stride
        self.before, self.odd = divmod(layer.total_padding, 2)
        # With stride 2, one more pixel after the last is what rounding the output size up amounts to.
        self.needs_copy = self.before > self.window // 2 or (self.odd == 1 and self.stride != 2)

    def forward(self, features: Tensor) -> Tensor:
        """[B, C, H, W] → [B, C, H', W'] with H' = (H + padding − window) // stride + 1."""
        if not self.needs_copy:
            return F.max_pool2d(features, self.window, self.stride, self.before, ceil_mode=bool(self.odd))
        after = self.before + self.odd
        padded = F.pad(features, (self.before, after, self.before, after), value=float("-inf"))
        return F.max_pool2d(padded, self.window, self.stride)


class Concatenation(nn.Module):
    """A route: its inputs, or one equal slice of each, along the channels."""

    def __init__(self, layer: Route) -> None:
        super().__init__()
        self.groups, self.group_id = layer.groups, layer.group_id

    def forward(self, *inputs: Tensor) -> Tensor:
        """Maps [B, Cᵢ, H, W] → [B, ΣCᵢ / groups, H, W]."""
        slices = [features.chunk(self.groups, 1)[self.group_id] for features in inputs]
        return slices[0] if len(slices) == 1 else torch.cat(slices, 1)


class Addition(nn.Module):
    """A shortcut: the sum of its inputs, then the activation."""

    def __init__(self, layer: Shortcut) -> None:
        super().__init__()
        self.activation = ACTIVATIONS[layer.activation]()

    def forward(self, first: Tensor, *others: Tensor) -> Tensor:
        """Maps of one shape [B, C, H, W] → [B, C, H, W]."""
        for other in others:
            first = first + other
        return self.activation(first)  # type: ignore[no-any-return]


class HeadOutput(nn.Module):
    """A yolo layer: its channels as a row an anchor and cell."""

    def __init__(self, layer: Yolo) -> None:
        super().__init__()
        self.rows = (len(layer.head_anchors), 5 + layer.classes)

    def forward(self, features: Tensor) -> Tensor:
        """[B, A·(5 + classes), h, w] → [B, A, h, w, 5 + classes], a view."""
        batch, _, height, width = features.shape
        return features.view(batch, *self.rows, height, width).permute(0, 1, 3, 4, 2)


def build_layer(layer: Layer, in_channels: int) -> nn.Module:
    """The module of a layer; called with the outputs of the layers it reads, in their order."""
    match layer:
        case Convolutional() | Depthwise():
            return Convolution(layer, in_channels)
        case SqueezeExcite():
            return SqueezeExcitation(layer)
        case Maxpool():
            return MaxPooling(layer)
        case Avgpool():
            return nn.AdaptiveAvgPool2d(1)
        case Upsample():
            return nn.Upsample(scale_factor=layer.stride, mode="nearest")
        case Route():
            return Concatenation(layer)
        case Shortcut():
            return Addition(layer)
        case Dropout():
            return nn.Dropout(layer.probability)
        case Yolo():
            return HeadOutput(layer)
