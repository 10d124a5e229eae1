"""Compensation: what a cut channel or block still emits is pushed into the layers that read it.

A channel whose γ is zero emits the constant act(β). Its readers lose ΣW·constant when it goes, so batch-normalised
ones get their running mean, others their bias, corrected by that. Inside the image this is exact; at its border
zero padding was never multiplied with the constant, so there it is an approximation, and measuring the statistics
anew on a few images (see `reestimation`) is usually worth more. A squeeze-excite layer multiplies the constant by a
gate that depends on the image, so behind it nothing is pushed on.

A residual block whose last convolution has γ zero adds such a constant to each channel of the sum. When it goes, the
channels of the sum stay and are short of it, up to the next convolution. So they are behind linear sums, pools and
upsampling; an activated sum bends the difference by what else it adds, so behind it nothing is pushed on either.
"""

from collections.abc import Sequence
from copy import deepcopy

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import conv2d

from yolo_dist.compress.graph import ChannelGraph
from yolo_dist.compress.residual import ResidualBlock
from yolo_dist.darknet.cfg import Route, Shortcut, SqueezeExcite, sources
from yolo_dist.darknet.layers import Addition, Convolution
from yolo_dist.darknet.network import Network


@torch.no_grad()
def compensate(
    network: Network, graph: ChannelGraph, kept: NDArray[np.bool_], blocks: Sequence[ResidualBlock] = ()
) -> Network:
    """A network like `network`, still full-size, prepared for losing channels and residual blocks.

    Args:
        network: stays as it is; the result shares the weights of its convolutions.
        graph: its channel graph.
        kept: channels that stay, bool [channels].
        blocks: that go, with all channels that feed their shortcuts.
    """
    network = deepcopy(network, _shared(network))
    feeding = {block.feeding for block in blocks}
    constants: list[Tensor] = []
    for index, layer in enumerate(network.layers):
        incoming = _incoming(network, graph, index, constants)
        removed = torch.from_numpy(~kept[graph.outputs[index]])
        if isinstance(layer, Convolution):
            emitted = _emitted(layer, incoming, graph.is_depthwise(index))
            constants.append(emitted if index in feeding else emitted * removed)
            _absorb(layer, incoming)
        elif isinstance(network.cfg.layers[index], SqueezeExcite):
            constants.append(torch.zeros_like(incoming))
        elif isinstance(layer, Addition) and not isinstance(layer.activation, nn.Identity):
            constants.append(layer.activation(incoming) * removed)
        else:
            constants.append(incoming)
    return network


def _shared(network: Network) -> dict[int, Tensor]:
    """What `deepcopy` shall not copy: filters, which nothing here changes and which are nearly all of a network."""
    return {id(layer.conv.weight): layer.conv.weight for layer in network.layers if isinstance(layer, Convolution)}


def _incoming(network: Network, graph: ChannelGraph, index: int, constants: Sequence[Tensor]) -> Tensor:
    """The constant that each input channel of a layer loses, all that it gave or what a block added, float64 [C]."""
    layer = network.cfg.layers[index]
    origins = sources(layer, index)
    if not origins:
        return torch.zeros(len(graph.inputs[index]), dtype=torch.float64)
    read = [constants[origin] for origin in origins]
    if isinstance(layer, Shortcut):
        return torch.stack(read).sum(dim=0)
    if isinstance(layer, Route):
        return torch.cat([constant.chunk(layer.groups)[layer.group_id] for constant in read])
    return read[0]


def _emitted(layer: Convolution, incoming: Tensor, depthwise: bool) -> Tensor:
    """The constant that each channel of a convolution emits once nothing but constants reaches it, float64 [C]."""
    bias = layer.conv.bias if layer.norm is None else layer.norm.bias
    assert bias is not None
    emitted = bias.to(torch.float64, copy=True)  # activations work in place
    if depthwise:
        emitted += _normalised(layer, _response(layer, incoming))
    return layer.activation(emitted)  # type: ignore[no-any-return]


def _response(layer: Convolution, incoming: Tensor) -> Tensor:
    """What the filters make of constant channels away from the border, before bias or normalisation, float64 [C]."""
    taps = layer.conv.weight.double().sum(dim=(2, 3), keepdim=True)
    return conv2d(incoming.view(1, -1, 1, 1), taps, groups=layer.conv.groups).flatten()


def _normalised(layer: Convolution, response: Tensor) -> Tensor:
    """A convolution's response behind its batch normalisation, if it has one, without bias or β, float64 [C]."""
    if layer.norm is None:
        return response
    assert layer.norm.running_mean is not None
    assert layer.norm.running_var is not None
    scale = layer.norm.weight.double() / (layer.norm.running_var.double() + layer.norm.eps).sqrt()
    return scale * (response - layer.norm.running_mean.double())


def _absorb(layer: Convolution, incoming: Tensor) -> None:
    """Correct a reader for the constants that will no longer arrive."""
    lost = _response(layer, incoming).to(layer.conv.weight.dtype)
    if layer.norm is not None:
        layer.norm.running_mean -= lost  # type: ignore[operator]
    elif layer.conv.bias is not None:
        layer.conv.bias += lost
