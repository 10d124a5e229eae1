"""From accumulators to the steps of a grid, with integers only (Jacob et al. 2018, §2.2)."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from pydantic import ConfigDict
from torch import Tensor

from yolo_dist.compress.quantization.grid import Grid

MULTIPLIER_BITS = 31
PRODUCT_BITS = 61
"""No accumulator times its multiplier needs more, so that 64-bit integers hold them with a half added."""
CHANNELS = (-1, 1, 1)


@dataclass(frozen=True)
class IntegerGrid:
    """The numbers (n − zero point)·scale for whole n from `lowest` to `highest`."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    scale: float
    zero_point: int
    lowest: int
    highest: int

    @classmethod
    def of(cls, grid: Grid) -> "IntegerGrid":
        """A grid with one scale, as plain numbers."""
        return cls(float(grid.scale), int(grid.zero_point), grid.lowest, grid.highest)

    def steps(self, values: Tensor) -> Tensor:
        """The n of the nearest numbers, int64 of `values`' shape."""
        return self._tensors().steps(values).long()

    def values(self, steps: Tensor) -> Tensor:
        """The numbers that steps stand for, float32."""
        return self._tensors().values(steps)

    @property
    def reach(self) -> int:
        """The largest magnitude of n − zero point."""
        return max(self.highest - self.zero_point, self.zero_point - self.lowest)

    def _tensors(self) -> Grid:
        return Grid(torch.tensor(self.scale), torch.tensor(float(self.zero_point)), self.lowest, self.highest)


@dataclass(frozen=True)
class Rescaling:
    """round(accumulators · multiplier / 2^shift) + zero point, cut at the ends.

    Attributes:
        shift: int64 [C] or [1]; negative ones shift left.
        zero_point, lowest, highest: of the grid that is rescaled to, its ends narrowed by an activation that clamps.
        multiplier: int64 [C] or [1]; negative where batch normalisation changes signs. Only 1 if a shift is enough.
    """

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(arbitrary_types_allowed=True, extra="forbid")

    shift: Tensor
    zero_point: int
    lowest: int
    highest: int
    multiplier: Tensor = field(default_factory=lambda: torch.ones(1, dtype=torch.int64))

    @property
    def multiplies(self) -> bool:
        """Whether shifts are not enough."""
        return bool((self.multiplier != 1).any())

    def __call__(self, accumulators: Tensor, parts: int = 1) -> Tensor:
        """int64 [B, C, H, W] → steps int64 [B, C, H, W]; `parts` divides too, before anything is rounded."""
        products = accumulators * self.multiplier.view(CHANNELS)
        steps = shift_right(products, self.shift.view(CHANNELS), parts).add_(self.zero_point)
        return steps.clamp_(self.lowest, self.highest)


def shift_right(numbers: Tensor, bits: Tensor, parts: int = 1) -> Tensor:
    """numbers / (2^bits · parts) to the nearest whole number, halves away from zero; negative bits shift left.

    Args:
        numbers: int64, below 2^61 in magnitude, once shifted left too.
        bits: int64 of at most 62, broadcastable.
        parts: at least 1.
    """
    sizes = numbers.abs() << (-bits).clamp(min=0)
    down = bits.clamp(min=0)
    if parts == 1:
        halves = (torch.ones_like(down) << down) >> 1
        return ((sizes + halves) >> down).mul_(numbers.sign())
    divisors = parts << down.clamp(max=PRODUCT_BITS - parts.bit_length())
    return torch.div(sizes + divisors // 2, divisors, rounding_mode="floor").mul_(numbers.sign())


def multiplier_and_shift(factor: Tensor, largest: Tensor) -> tuple[Tensor, Tensor]:
    """Odd multipliers m and shifts s with factor ≈ m / 2^s: as precise as 31 bits and the accumulators allow.

    A factor so small that all becomes 0 is a shift by 62; one so large that everything but 0 leaves any grid is cut.

    Args:
        factor: float64, not 0.
        largest: magnitude that accumulators cannot exceed, int64 of the same shape.

    Returns:
        Both int64 of the same shape; m is 1 for powers of two.
    """
    mantissa, exponent = torch.frexp(factor)
    room = bit_length(largest)
    bits = (PRODUCT_BITS - room).clamp(1, MULTIPLIER_BITS)
    multiplier = torch.round(torch.ldexp(mantissa, bits)).long()
    zeros = trailing_zeros(multiplier)
    multiplier, shift = multiplier >> zeros, bits - exponent - zeros
    vanishes = shift > PRODUCT_BITS
    multiplier = torch.where(vanishes, torch.ones_like(multiplier), multiplier)
    leftmost = bit_length(multiplier.abs()) + room - PRODUCT_BITS
    return multiplier, torch.maximum(shift, leftmost.clamp(max=0)).clamp(max=PRODUCT_BITS)


def common_shift(factors: Sequence[float], largest: int) -> tuple[tuple[int, ...], tuple[int, ...], int]:
    """One odd multiplier m and one shift to the left a for each factor, and a common shift s: factor ≈ m · 2^a / 2^s.

    Args:
        factors: positive.
        largest: what magnitudes add up to at most before they are multiplied.
    """
    bits = min(MULTIPLIER_BITS, PRODUCT_BITS - largest.bit_length())
    exponent = max(math.frexp(factor)[1] for factor in factors)
    scaled = torch.tensor([round(math.ldexp(factor, bits - exponent)) for factor in factors])
    zeros = trailing_zeros(scaled)
    common = int(zeros[scaled != 0].min())
    alignments = (zeros - common).clamp(min=0)
    return tuple((scaled >> zeros.clamp(min=0)).tolist()), tuple(alignments.tolist()), bits - exponent - common


def trailing_zeros(numbers: Tensor) -> Tensor:
    """How often 2 divides whole numbers, int64; −1 for 0."""
    return bit_length(numbers & -numbers) - 1


def bit_length(numbers: Tensor) -> Tensor:
    """Bits of the magnitude of whole numbers below 2^62, int64; 0 for 0."""
    powers = torch.ones(63, dtype=torch.int64) << torch.arange(63)
    return torch.bucketize(numbers.abs(), powers, right=True)
