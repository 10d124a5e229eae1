"""Quantised weights and biases as the integers that a file holds."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from yolo_dist.compress.quantization.grid import SMALLEST_SCALE
from yolo_dist.compress.quantization.layers import DeployedConvolution
from yolo_dist.compress.quantization.rounding import round_half_away
from yolo_dist.compress.quantization.schemes import CHANNEL_SHAPE
from yolo_dist.errors import NotExportable
from yolo_dist.export.graph import INTEGERS_OF_16_BITS, Graph

LARGEST_IN_7_BITS = 63
LARGEST_BIAS = 2**30
"""In steps of the accumulator: half of int32, so that the products have room."""


@dataclass(frozen=True)
class StoredWeights:
    """Weights (values − zero point)·scale.

    Attributes:
        values: int8, uint8 or int16 [O, I, h, w].
        zero_point: of all filters, of `values`' dtype.
        scale: of each filter, float32 [O].
    """

    values: NDArray[Any]
    zero_point: int
    scale: NDArray[np.float32]


def store_weights(steps: Tensor, zero_point: Tensor, scale: Tensor) -> StoredWeights | None:
    """Weights (steps − zero point)·scale in the type that runtimes are fastest with.

    That is int8 around 0 where they fit, and a negative scale goes into the sign of its filter; else uint8, else int16.

    Args:
        steps: whole numbers, float32 [O, I, h, w].
        zero_point: whole numbers, one or one a filter.
        scale: float32 [O], of any sign.

    Returns:
        The weights, None if not even int16 holds them.
    """
    zero_points = zero_point.flatten()
    centred = steps - (zero_points if len(zero_points) == 1 else zero_points.view(CHANNEL_SHAPE))
    sign = torch.where(scale < 0, -1.0, 1.0)
    common = int(zero_points[0]) if (zero_points == zero_points[0]).all() else 0
    for values, point, factor, dtype in (
        (centred * sign.view(CHANNEL_SHAPE), 0, scale.abs(), np.int8),
        (centred, 0, scale, np.int8),
        (centred + common, common, scale, np.uint8),
        (centred, 0, scale, np.int16),
    ):
        limits = np.iinfo(dtype)
        if limits.min <= values.min() and values.max() <= limits.max:
            return StoredWeights(values.numpy().astype(dtype), point, factor.numpy())
    return None


def in_seven_bits(layer: DeployedConvolution) -> DeployedConvolution:
    """The same layer with weights of fewer than 7 bits times the largest 2^k that 7 bits hold, scales divided by it.

    The accumulators have finer steps then, and with them the bias. With 8 bits they would be finer still, but two
    products with a uint8 would not fit into 16 bits, in which processors without VNNI instructions add them.
    """
    centred = layer.steps - layer.zero_point.view(CHANNEL_SHAPE)
    factor = 2.0 ** math.floor(math.log2(LARGEST_IN_7_BITS / max(1.0, float(centred.abs().max()))))
    if factor <= 1:
        return layer
    return DeployedConvolution(centred * factor, torch.zeros_like(layer.zero_point), layer.scale / factor, layer.bias)


def with_room_for_bias(layer: DeployedConvolution, input_scale: float) -> DeployedConvolution:
    """The same layer with a bias that int32 holds in steps of the accumulator, input scale × filter's scale.

    A filter of nearly dead γ has a scale so small that its bias would not fit. It gets the smallest scale at which it
    does, which moves its sums by less than the bias's 2⁻³⁰ a weight.
    """
    smallest = (layer.bias.abs() / (LARGEST_BIAS * input_scale)).clamp_min(SMALLEST_SCALE)
    scale = torch.where(layer.scale < 0, -1.0, 1.0) * layer.scale.abs().maximum(smallest)
    zero_point = layer.zero_point.view(CHANNEL_SHAPE)
    centred = round_half_away((layer.steps - zero_point) * (layer.scale / scale).view(CHANNEL_SHAPE))
    return DeployedConvolution(centred + zero_point, layer.zero_point, scale, layer.bias)


def add_weights(graph: Graph, steps: Tensor, zero_point: Tensor, scale: Tensor) -> tuple[str, NDArray[np.float32]]:
    """Weights read from integers; see `store_weights`.

    Returns:
        Their name, and the scale of each filter as it is stored.

    Raises:
        NotExportable: no type of this opset holds them; names the layer.
    """
    stored = store_weights(steps, zero_point, scale)
    if stored is None:
        raise NotExportable(
            f"{graph.place}: its weights have more than 16 bits (scheme dorefa needs one more than weight_bits); "
            "lower weight_bits, or leave the layer float"
        )
    if stored.values.dtype == np.int16:
        graph.require(INTEGERS_OF_16_BITS, "a weight of more than 8 bits (at scheme dorefa more than 7)")
    weights = graph.add(
        "DequantizeLinear",
        graph.constant(stored.values, stored.values.dtype),
        graph.constant(stored.scale),
        graph.constant(np.full(len(stored.scale), stored.zero_point), stored.values.dtype),
        axis=0,
    )
    return weights, stored.scale


def add_bias(graph: Graph, bias: Tensor, scale: NDArray[np.float32]) -> str:
    """A bias [O] read from int32, in steps of `scale` [O]."""
    steps = np.rint(bias.numpy().astype(np.float64) / scale.astype(np.float64))
    return graph.add("DequantizeLinear", graph.constant(steps, np.int32), graph.constant(scale), axis=0)
