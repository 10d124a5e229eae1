"""The filters of a convolution as integers: weights, biases in the accumulators' unit, and what that unit is."""

from dataclasses import dataclass

import torch
from torch import Tensor

from yolo_dist.compress.quantization.integer.rescaling import IntegerGrid, bit_length, shift_right
from yolo_dist.compress.quantization.layers import DeployedConvolution
from yolo_dist.compress.quantization.rounding import round_half_away

LARGEST_BIAS = 2**31 - 1
ACCUMULATOR_BITS = 45
"""Beyond them, multipliers would have fewer than 16 bits."""
FINER_THAN_GRID = 2.0**-8
"""Rounding a bias to this part of a step changes about one number of a thousand."""
FINER_THAN_LOGIT = 2.0**-10


@dataclass(frozen=True)
class Filters:
    """(Σ (w − zero point)(x − x₀)) · 2^alignment + bias, in `unit`.

    Attributes:
        weight: int64 [O, I, h, w].
        zero_point, alignment, bias: int64 [O]; a negative alignment shifts right.
        unit: the real number that an accumulator counts, float64 [O], negative where the scale is.
        largest: magnitude that accumulators cannot exceed, int64 [O].
    """

    weight: Tensor
    zero_point: Tensor
    alignment: Tensor
    bias: Tensor
    unit: Tensor
    largest: Tensor


def integer_filters(convolution: DeployedConvolution, source: IntegerGrid, grid: IntegerGrid | None) -> Filters:
    """The filters over inputs on `source`, precise enough for outputs on `grid`, or for a head where there is none.

    Sums are shifted so that biases fit 32 bits and are not coarse compared with the output. A filter whose products
    are smaller than the unit that its bias needs, as with γ near 0, gives its bias alone.
    """
    finest = FINER_THAN_LOGIT if grid is None else grid.scale * FINER_THAN_GRID
    scale, bias = convolution.scale.cpu().double() * source.scale, convolution.bias.cpu().double()
    weight, zero_point = convolution.steps.cpu().long(), convolution.zero_point.cpu().long()
    sums = (weight - zero_point.view(-1, 1, 1, 1)).abs().sum((1, 2, 3)) * source.reach
    sum_bits = bit_length(sums)

    wanted = torch.ceil(torch.log2(scale.abs() / finest)).clamp(min=0)
    fitting = torch.where(bias == 0, wanted, torch.floor(torch.log2(scale.abs() / bias.abs() * LARGEST_BIAS)))
    alignment = torch.minimum(torch.minimum(wanted, fitting), ACCUMULATOR_BITS - sum_bits)
    silent = (alignment < -sum_bits) | (scale == 0)
    alignment = torch.where(silent, 0, alignment).long()
    weight = torch.where(silent.view(-1, 1, 1, 1), zero_point.view(-1, 1, 1, 1), weight)
    sums = torch.where(silent, 0, sums)
    bias_unit = torch.exp2(torch.ceil(torch.log2(bias.abs() / LARGEST_BIAS))).clamp(min=finest)
    unit = torch.where(silent, bias_unit, torch.ldexp(scale, -alignment))
    steps = round_half_away(bias / unit).long()
    return Filters(weight, zero_point, alignment, steps, unit, shift_right(sums, -alignment) + steps.abs())
