"""Darknet's layers as nodes of an ONNX graph, in float32."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import nn

from yolo_dist.darknet.layers import (
    Addition,
    Concatenation,
    Convolution,
    HeadOutput,
    MaxPooling,
    SqueezeExcitation,
)
from yolo_dist.export.graph import Graph

GATE = {"alpha": 1 / 6, "beta": 0.5}
"""torch's hardsigmoid: clamp(x / 6 + 1/2, 0, 1)."""


def add_float_layer(graph: Graph, module: nn.Module, inputs: Sequence[str], channels: Sequence[int]) -> str:
    """Add one layer.

    Args:
        graph: to which it is added.
        module: a layer of a network.
        inputs: names of the maps it reads, float32 [B, C, H, W].
        channels: C of each of them.

    Returns:
        Name of the map it gives.
    """
    first = inputs[0]
    match module:
        case Convolution():
            weight, bias = without_batch_norm(module)
            output = add_convolution(graph, module.conv, first, graph.constant(weight), graph.constant(bias))
            return add_activation(graph, module.activation, output)
        case SqueezeExcitation():
            squeeze, excite = (graph.constant(conv.weight.detach()) for conv in (module.fc1, module.fc2))
            hidden = add_convolution(graph, module.fc1, add_average(graph, first), squeeze)
            gate = add_convolution(graph, module.fc2, graph.add("Relu", hidden), excite)
            return graph.add("Mul", first, graph.add("HardSigmoid", gate, **GATE))
        case MaxPooling():
            return _add_max_pooling(graph, module, first)
        case nn.AdaptiveAvgPool2d():
            return add_average(graph, first)
        case nn.Upsample():
            return _add_upsampling(graph, module, first)
        case Concatenation():
            return add_concatenation(graph, module, inputs, channels)
        case Addition():
            return add_activation(graph, module.activation, add_sum(graph, inputs))
        case nn.Dropout() | HeadOutput():
            return first
    raise TypeError(f"{graph.place}: no export of {type(module).__name__}")


def add_convolution(graph: Graph, conv: nn.Conv2d, features: str, weight: str, bias: str | None = None) -> str:
    """A convolution of `conv`'s geometry with a weight and a bias that are in the graph already."""
    height, width = map(int, conv.padding)
    return graph.add(
        "Conv",
        features,
        weight,
        *([] if bias is None else [bias]),
        kernel_shape=list(conv.kernel_size),
        strides=list(conv.stride),
        pads=[height, width, height, width],
        dilations=list(conv.dilation),
        group=conv.groups,
    )


def without_batch_norm(layer: Convolution) -> tuple[torch.Tensor, torch.Tensor]:
    """Filters [O, I, h, w] and biases [O] that do what convolution and batch normalisation do."""
    weight = layer.conv.weight.detach()
    if layer.norm is None:
        assert layer.conv.bias is not None
        return weight, layer.conv.bias.detach()
    norm = layer.norm
    assert norm.running_mean is not None
    assert norm.running_var is not None
    factor = norm.weight.detach().double() / (norm.running_var.double() + norm.eps).sqrt()
    bias = norm.bias.detach().double() - norm.running_mean.double() * factor
    return (weight.double() * factor[:, None, None, None]).float(), bias.float()


def add_activation(graph: Graph, activation: nn.Module, features: str) -> str:
    """An activation."""
    match activation:
        case nn.Identity():
            return features
        case nn.Hardswish():
            graph.require(14, "activation h_swish")
            return graph.add("HardSwish", features)
    return _ACTIVATIONS[type(activation)](graph, features)


def _add_mish(graph: Graph, features: str) -> str:
    """x·tanh(ln(1 + eˣ)) as x·(1 − q²) / (1 + q²) with q = 1 / (1 + eˣ).

    That is five times as fast as ONNX Runtime's own operator, and nearer to torch's.
    """
    one, q = graph.constant(1.0), graph.add("Sigmoid", graph.add("Neg", features))
    square = graph.add("Mul", q, q)
    gate = graph.add("Div", graph.add("Sub", one, square), graph.add("Add", one, square))
    return graph.add("Mul", features, gate)


_ACTIVATIONS: dict[type[nn.Module], Callable[[Graph, str], str]] = {
    nn.LeakyReLU: lambda graph, features: graph.add("LeakyRelu", features, alpha=0.1),
    nn.ReLU: lambda graph, features: graph.add("Relu", features),
    nn.ReLU6: lambda graph, features: graph.add("Clip", features, graph.constant(0.0), graph.constant(6.0)),
    nn.SiLU: lambda graph, features: graph.add("Mul", features, graph.add("Sigmoid", features)),
    nn.Mish: _add_mish,
    nn.Sigmoid: lambda graph, features: graph.add("Sigmoid", features),
}


def add_average(graph: Graph, features: str) -> str:
    """The average of each channel's map, [B, C, 1, 1]."""
    return graph.add("GlobalAveragePool", features)


def add_sum(graph: Graph, inputs: Sequence[str]) -> str:
    """The sum of maps of one shape."""
    total = inputs[0]
    for other in inputs[1:]:
        total = graph.add("Add", total, other)
    return total


def add_concatenation(graph: Graph, route: Concatenation, inputs: Sequence[str], channels: Sequence[int]) -> str:
    """The inputs, or one slice of each, along the channels."""
    if route.groups > 1:
        inputs = [_add_slice(graph, route, *part) for part in zip(inputs, channels, strict=True)]
    return graph.add("Concat", *inputs, axis=1) if len(inputs) > 1 else inputs[0]


def _add_slice(graph: Graph, route: Concatenation, features: str, channels: int) -> str:
    width = channels // route.groups
    first, last, axis = (
        graph.constant([number], np.int64) for number in (route.group_id * width, (route.group_id + 1) * width, 1)
    )
    return graph.add("Slice", features, first, last, axis)


def _add_max_pooling(graph: Graph, pooling: MaxPooling, features: str) -> str:
    after = pooling.before + pooling.odd
    return graph.add(
        "MaxPool",
        features,
        kernel_shape=[pooling.window] * 2,
        strides=[pooling.stride] * 2,
        pads=[pooling.before, pooling.before, after, after],
    )


def _add_upsampling(graph: Graph, upsampling: nn.Upsample, features: str) -> str:
    factor = float(upsampling.scale_factor)  # type: ignore[arg-type]
    return graph.add(
        "Resize",
        features,
        "",
        graph.constant([1, 1, factor, factor]),
        mode="nearest",
        coordinate_transformation_mode="asymmetric",
        nearest_mode="floor",
    )
