"""A network that computes as an integer machine would, in floating point: every number lies on a grid."""

from collections.abc import Collection, Iterator
from math import ceil

import torch
from torch import Tensor

from yolo_dist.compress.quantization.activations import ActivationQuantizer
from yolo_dist.compress.quantization.config import EndBits, QuantizationConfig
from yolo_dist.compress.quantization.layers import (
    QuantizedAddition,
    QuantizedAveragePooling,
    QuantizedConcatenation,
    QuantizedConvolution,
    QuantizedSqueezeExcitation,
)
from yolo_dist.darknet.cfg import Avgpool, Cfg, Convolutional, Depthwise, Route, Shortcut, SqueezeExcite
from yolo_dist.darknet.channels import in_channels
from yolo_dist.darknet.network import Network
from yolo_dist.darknet.shapes import infer_shapes
from yolo_dist.errors import AlreadyQuantized

IMAGE_BITS = 8


READS_A_HEADS_MAP = "reads a layer that feeds a head, whose numbers lie on no grid; put a convolution between them"
"""Why a layer cannot be computed in integers."""


class QuantizedNetwork(Network):
    """The network of a cfg with quantised layers; parameters have the names that a float network gives them.

    Attributes:
        config: how it is quantised.
        image: quantiser of the image, 8 bits over 0..1.
    """

    def __init__(self, cfg: Cfg, config: QuantizationConfig) -> None:
        super().__init__(cfg)
        self.config = config.settled
        self.image = ActivationQuantizer(IMAGE_BITS, "positive", config.power_of_two)
        self.image.set_range(torch.zeros(()), torch.ones(()))
        shapes = infer_shapes(cfg)
        feeders = set(cfg.head_convolutions.values())
        first = min(index for index, layer in enumerate(cfg.layers) if isinstance(layer, Convolutional | Depthwise))
        for index, layer in enumerate(cfg.layers):
            match layer:
                case Convolutional() | Depthwise():
                    bits = _bits(config, index == first, index in feeders)
                    channels = shapes[index].in_channels
                    self.layers[index] = QuantizedConvolution(layer, channels, config, bits, index in feeders)
                case SqueezeExcite():
                    self.layers[index] = QuantizedSqueezeExcitation(layer, config)
                case Shortcut():
                    self.layers[index] = QuantizedAddition(layer, config)
                case Avgpool():
                    self.layers[index] = QuantizedAveragePooling(layer, config)
                case Route() if len(layer.layers) > 1:
                    self.layers[index] = QuantizedConcatenation(layer, config)

    def forward_features(self, images: Tensor, layers: Collection[int]) -> tuple[list[Tensor], dict[int, Tensor]]:
        """As `Network.forward_features`, with the image on its grid."""
        return super().forward_features(self.image(in_channels(images, self.cfg.net.channels)), layers)

    @property
    def stored_bytes(self) -> int:
        """What its weights, biases and scales of weights take where they are deployed, packed layer by layer."""
        layers = (one for one in self.layers if isinstance(one, QuantizedConvolution | QuantizedSqueezeExcitation))
        return sum(ceil(layer.stored_bits / 8) for layer in layers)

    def quantizers(self) -> Iterator[tuple[str, ActivationQuantizer]]:
        """Name and quantiser of every activation whose range is measured."""
        for name, module in self.layers.named_modules():
            if isinstance(module, ActivationQuantizer):
                yield f"layers.{name}", module


def quantize(network: Network, config: QuantizationConfig) -> QuantizedNetwork:
    """A quantised network with a float network's weights, without ranges yet.

    Raises:
        AlreadyQuantized: `network` is quantised.
    """
    if isinstance(network, QuantizedNetwork):
        raise AlreadyQuantized("the network is quantised already; take the float bundle it was made from")
    quantized = QuantizedNetwork(network.cfg, config)
    quantized.load_state_dict(quantized.state_dict() | network.state_dict())
    return quantized.train(network.training)


def as_float(network: QuantizedNetwork) -> Network:
    """The float network with a quantised one's weights, on its device; a copy."""
    plain = Network(network.cfg).to(network.image.low.device)
    state = network.state_dict()
    plain.load_state_dict({name: state[name] for name in plain.state_dict()})
    return plain.train(network.training)


def _bits(config: QuantizationConfig, first: bool, last: bool) -> EndBits:
    if first and config.first_bits is not None:
        return config.first_bits
    if last and config.last_bits is not None:
        return config.last_bits
    return config.weight_bits
