"""Ranges of activations, measured batch by batch."""

from collections.abc import Callable
from typing import Literal, Protocol

import torch
from torch import Tensor

from yolo_dist.compress.quantization.grid import Grid

RangeMeasure = Literal["minmax", "moving-average", "percentile", "mse"]

MOMENTUM = 0.1
PERCENTILE = 99.99
BINS = 4096
SHARES = torch.linspace(1.0, 0.2, 81)
"""Parts of the full range among which `mse` chooses."""


class RangeObserver(Protocol):
    """Sees an activation batch by batch and says over which range a grid should lie."""

    def observe(self, values: Tensor) -> None:
        """See one batch, of any shape."""

    def range(self) -> tuple[Tensor, Tensor]:
        """Lowest and highest number to represent, float32 scalars."""


class MinMax:
    """From the smallest to the largest number ever seen."""

    def __init__(self) -> None:
        self.low = self.high = torch.zeros(())

    def observe(self, values: Tensor) -> None:
        """See one batch."""
        low, high = extremes(values)
        self.low, self.high = torch.minimum(self.low, low), torch.maximum(self.high, high)

    def range(self) -> tuple[Tensor, Tensor]:
        """What was seen."""
        return self.low, self.high


class MovingAverage:
    """Moving averages of the batches' smallest and largest numbers, the first batch's at the start."""

    def __init__(self) -> None:
        self.ends: Tensor | None = None

    def observe(self, values: Tensor) -> None:
        """See one batch."""
        ends = torch.stack(extremes(values))
        self.ends = ends if self.ends is None else self.ends.lerp(ends, MOMENTUM)

    def range(self) -> tuple[Tensor, Tensor]:
        """The averages; nothing but 0 before the first batch."""
        low, high = torch.zeros(2) if self.ends is None else self.ends
        return low, high


class Histogram:
    """Counts in equal bins over a range known before, from which a narrower range is chosen."""

    def __init__(self, low: Tensor, high: Tensor, choose: "Choice") -> None:
        self.low, self.high, self.choose = low, high, choose
        self.counts = torch.zeros(BINS, dtype=torch.float64)

    def observe(self, values: Tensor) -> None:
        """See one batch."""
        if self.low < self.high:
            counts = torch.histc(values.float(), BINS, float(self.low), float(self.high))
            self.counts += counts.to("cpu", torch.float64)

    def range(self) -> tuple[Tensor, Tensor]:
        """The range chosen."""
        return self.choose(self.low, self.high, self.counts) if self.low < self.high else (self.low, self.high)


Choice = Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]
"""Range seen and counts of a histogram over it → range to represent."""


def without_extremes(low: Tensor, high: Tensor, counts: Tensor) -> tuple[Tensor, Tensor]:
    """The range without the most extreme 100 − `PERCENTILE` per cent, half of them on each side."""
    tail = (100 - PERCENTILE) / 200
    shares = counts.cumsum(0) / counts.sum()
    edges = torch.linspace(float(low), float(high), BINS + 1)
    first = int((shares > tail).to(torch.uint8).argmax())
    last = int((shares >= 1 - tail).to(torch.uint8).argmax())
    return edges[first], edges[last + 1]


def least_error(lay: Callable[[Tensor, Tensor], Grid]) -> Choice:
    """The choice of the range whose grid leaves the least mean squared error.

    Both ends are cut together first, as a symmetric grid needs, then the high one alone, then the low.
    """

    def choose(low: Tensor, high: Tensor, counts: Tensor) -> tuple[Tensor, Tensor]:
        edges = torch.linspace(float(low), float(high), BINS + 1)
        centres = (edges[1:] + edges[:-1]) / 2

        def error(ends: tuple[Tensor, Tensor]) -> float:
            return float((counts * (lay(*ends).snap(centres) - centres).square()).sum())

        low, high = min(((low * share, high * share) for share in SHARES), key=error)
        low, high = min(((low, high * share) for share in SHARES), key=error)
        return min(((low * share, high) for share in SHARES), key=error)

    return choose


def extremes(values: Tensor) -> tuple[Tensor, Tensor]:
    """Smallest and largest number, float32 scalars on the CPU."""
    low, high = torch.aminmax(values)
    return low.float().cpu(), high.float().cpu()
