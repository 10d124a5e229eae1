"""Layers of a network as nodes of an ONNX graph, in integers where the network is quantised.

An operator that stands between DequantizeLinear and QuantizeLinear is one integer operator of ONNX Runtime or OpenVINO.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from yolo_dist.compress.quantization.activations import ActivationQuantizer
from yolo_dist.compress.quantization.layers import (
    CLAMPS,
    QuantizedAddition,
    QuantizedAveragePooling,
    QuantizedConcatenation,
    QuantizedConvolution,
    QuantizedSqueezeExcitation,
)
from yolo_dist.compress.quantization.network import READS_A_HEADS_MAP
from yolo_dist.errors import NotExportable
from yolo_dist.export.float_layers import (
    GATE,
    add_activation,
    add_average,
    add_concatenation,
    add_convolution,
    add_float_layer,
    add_sum,
    without_batch_norm,
)
from yolo_dist.export.graph import Graph
from yolo_dist.export.grids import StoredGrid, add_grid
from yolo_dist.export.weights import add_bias, add_weights, in_seven_bits, with_room_for_bias


@dataclass(frozen=True)
class Signal:
    """A map [B, C, H, W] in the graph: name of its real numbers, channels, and the grid they lie on."""

    name: str
    channels: int
    grid: StoredGrid | None = None


def add_layer(graph: Graph, module: nn.Module, inputs: Sequence[Signal]) -> tuple[str, StoredGrid | None]:
    """Add one layer of a network, quantised or not.

    Returns:
        Name of the real numbers it gives, and the grid they lie on; none for those that heads read.

    Raises:
        NotExportable: integers of ONNX cannot say what it computes; names layer and setting.
    """
    first = inputs[0]
    names, channels = [signal.name for signal in inputs], [signal.channels for signal in inputs]
    match module:
        case QuantizedConvolution():
            return _add_convolution(graph, module, first)
        case QuantizedSqueezeExcitation():
            return _add_squeeze_excitation(graph, module, first)
        case QuantizedAddition():
            return _add_activation(graph, module, add_sum(graph, names), module.output)
        case QuantizedConcatenation():
            return add_grid(graph, add_concatenation(graph, module, names, channels), module.output)
        case QuantizedAveragePooling():
            return add_grid(graph, add_average(graph, first.name), module.output)
    output = add_float_layer(graph, module, names, channels)
    if output == first.name or first.grid is None:
        return output, first.grid
    return add_grid(graph, output, first.grid.open)  # it hands numbers on as they are


def _add_convolution(graph: Graph, layer: QuantizedConvolution, features: Signal) -> tuple[str, StoredGrid | None]:
    if layer.weight_bits is None:
        weight, bias = (graph.constant(values) for values in without_batch_norm(layer))
    else:
        weight, bias = _add_deployed(graph, layer, features)
    output = add_convolution(graph, layer.conv, features.name, weight, bias)
    return _add_activation(graph, layer, output, layer.output)


def _add_activation(
    graph: Graph, layer: QuantizedConvolution | QuantizedAddition, features: str, output: ActivationQuantizer | None
) -> tuple[str, StoredGrid | None]:
    """What follows a sum: a clamp of the output's grid, or an activation that is looked up from a grid of its own."""
    if output is not None and isinstance(layer.activation, CLAMPS):
        return add_grid(graph, features, StoredGrid.of(output.grid()).clamped(layer.activation))
    if layer.before is not None:
        features, _ = add_grid(graph, features, layer.before)
    features = add_activation(graph, layer.activation, features)
    return (features, None) if output is None else add_grid(graph, features, output)


def _add_squeeze_excitation(
    graph: Graph, layer: QuantizedSqueezeExcitation, features: Signal
) -> tuple[str, StoredGrid]:
    pooled, _ = add_grid(graph, add_average(graph, features.name), layer.pooled)
    squeezed = add_convolution(graph, layer.fc1, pooled, _add_gate_weights(graph, layer, layer.fc1))
    hidden, _ = add_grid(graph, squeezed, StoredGrid.of(layer.hidden.grid()).clamped(nn.ReLU()))
    excited = add_convolution(graph, layer.fc2, hidden, _add_gate_weights(graph, layer, layer.fc2))
    before, _ = add_grid(graph, excited, layer.before)
    gate, _ = add_grid(graph, graph.add("HardSigmoid", before, **GATE), layer.gate)
    return add_grid(graph, graph.add("Mul", features.name, gate), layer.output)


def _add_gate_weights(graph: Graph, layer: QuantizedSqueezeExcitation, conv: nn.Conv2d) -> str:
    with torch.no_grad():
        quantized = layer.quantized(conv)
        scale = quantized.scale.flatten().expand(len(conv.weight))
        return add_weights(graph, quantized.steps, quantized.zero_point, scale)[0]


def _add_deployed(graph: Graph, layer: QuantizedConvolution, features: Signal) -> tuple[str, str]:
    """Weights and biases of a convolution, read from integers."""
    if features.grid is None:
        raise NotExportable(f"{graph.place}: {READS_A_HEADS_MAP}")
    step, deployed = features.grid.scale, layer.deployed()
    if layer.output is None:  # no QuantizeLinear follows: runtimes compute it in float
        weights, _ = add_weights(graph, deployed.steps, deployed.zero_point, deployed.scale)
        return weights, graph.constant(deployed.bias)
    deployed = with_room_for_bias(in_seven_bits(deployed), step)
    weights, scale = add_weights(graph, deployed.steps, deployed.zero_point, deployed.scale)
    return weights, add_bias(graph, deployed.bias, scale * np.float32(step))
