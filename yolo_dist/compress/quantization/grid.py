"""Grids: which real numbers so many bits stand for, and the rules that lay a grid over a range."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from yolo_dist.compress.quantization.rounding import round_half_away, round_to_grid, snap

GridRule = Literal["symmetric", "asymmetric", "positive"]
"""`symmetric`: signed, zero in the middle. `asymmetric`: unsigned, from the lowest to the highest number, zero among
them. `positive`: unsigned from zero."""

SMALLEST_SCALE = 2.0**-60


@dataclass(frozen=True)
class Grid:
    """The numbers (n − zero point)·scale for whole n from `lowest` to `highest`.

    Attributes:
        scale: distance of two neighbours, float32, one number or one a channel.
        zero_point: the n that stands for 0, whole numbers in float32, of scale's shape.
        lowest, highest: ends.
    """

    scale: Tensor
    zero_point: Tensor
    lowest: int
    highest: int

    def steps(self, values: Tensor) -> Tensor:
        """The n of the nearest numbers, differentiable; see `round_to_grid`."""
        return round_to_grid(values, self.scale, self.zero_point, self.lowest, self.highest)

    def snap(self, values: Tensor) -> Tensor:
        """The nearest numbers themselves, differentiable."""
        return snap(values, self.scale, self.zero_point, self.lowest, self.highest)

    def values(self, steps: Tensor) -> Tensor:
        """The numbers that steps stand for."""
        return (steps - self.zero_point) * self.scale


def lay_grid(low: Tensor, high: Tensor, bits: int, rule: GridRule, power_of_two: bool = False) -> Grid:
    """The grid of `bits` bits over a range (Jacob et al. 2018, §2.1 and §3; ranges always include 0).

    Args:
        low, high: ends of the range, float32, one number or one a channel.
        bits: 2^bits points.
        rule: where they lie.
        power_of_two: whether the scale is rounded to 2^k, so that a rescaling is a shift; a scale rounded down cuts
            the range.
    """
    low, high = low.float().clamp(max=0), high.float().clamp(min=0)
    if rule == "symmetric":
        half = 2 ** (bits - 1)
        scale = _scale(torch.maximum(-low, high) / (half - 1), power_of_two)
        return Grid(scale, torch.zeros_like(scale), -half, half - 1)
    highest = 2**bits - 1
    if rule == "positive":
        low = torch.zeros_like(low)
    scale = _scale((high - low) / highest, power_of_two)
    return Grid(scale, round_half_away(-low / scale).clamp(0, highest), 0, highest)


def _scale(step: Tensor, power_of_two: bool) -> Tensor:
    step = torch.where(step > SMALLEST_SCALE, step, torch.ones_like(step))
    return nearest_power_of_two(step) if power_of_two else step


def nearest_power_of_two(values: Tensor) -> Tensor:
    """The nearest 2^k of positive numbers, nearest in the linear sense, the lower one of two equally near."""
    mantissa, exponent = torch.frexp(values)
    return torch.ldexp(torch.ones_like(values), exponent - (mantissa <= 0.75).to(exponent.dtype))
