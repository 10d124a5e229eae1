"""Surgery: a network without the channels that a plan lets go. It decides nothing."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from yolo_dist.compress.graph import ChannelGraph
from yolo_dist.darknet.cfg import Cfg, Convolutional, Depthwise, Layer, SqueezeExcite
from yolo_dist.darknet.layers import Convolution, SqueezeExcitation
from yolo_dist.darknet.network import Network

Kept = NDArray[np.bool_]


@torch.no_grad()
def cut(network: Network, graph: ChannelGraph, kept: Kept) -> Network:
    """The compact network: new cfg, and the weights of the channels in `kept` (bool [channels])."""
    compact = Network(compact_cfg(graph, kept))
    for index, (layer, original) in enumerate(zip(compact.layers, network.layers, strict=True)):
        rows = torch.from_numpy(kept[graph.outputs[index]])
        columns = torch.from_numpy(kept[graph.inputs[index]])
        if isinstance(layer, Convolution) and isinstance(original, Convolution):
            _copy_convolution(layer, original, rows, columns)
        elif isinstance(layer, SqueezeExcitation) and isinstance(original, SqueezeExcitation):
            layer.fc1.weight.copy_(original.fc1.weight[:, columns])
            layer.fc2.weight.copy_(original.fc2.weight[rows])
    return compact.train(network.training)


def compact_cfg(graph: ChannelGraph, kept: Kept) -> Cfg:
    """The cfg with every layer's filters counted anew; its routes and shortcuts keep their places."""
    return graph.cfg.with_layers(
        tuple(_resized(layer, graph, index, kept) for index, layer in enumerate(graph.cfg.layers))
    )


def _resized(layer: Layer, graph: ChannelGraph, index: int, kept: Kept) -> Layer:
    filters = int(kept[graph.outputs[index]].sum())
    if filters == len(graph.outputs[index]):
        return layer
    if isinstance(layer, Convolutional):
        groups = {"groups": filters} if graph.is_depthwise(index) else {}
        return layer.model_copy(update={"filters": filters, **groups})
    if isinstance(layer, Depthwise):
        return layer.model_copy(update={"filters": filters})
    if isinstance(layer, SqueezeExcite):
        return layer.model_copy(update={"filters": filters, "hidden": layer.hidden_channels})
    return layer


def _copy_convolution(layer: Convolution, original: Convolution, rows: Tensor, columns: Tensor) -> None:
    weight = original.conv.weight[rows]
    layer.conv.weight.copy_(weight if original.conv.groups > 1 else weight[:, columns])
    if layer.conv.bias is not None and original.conv.bias is not None:
        layer.conv.bias.copy_(original.conv.bias[rows])
    if layer.norm is None or original.norm is None:
        return
    for name in ("weight", "bias", "running_mean", "running_var"):
        getattr(layer.norm, name).copy_(getattr(original.norm, name)[rows])
