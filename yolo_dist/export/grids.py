"""Grids of activations in an ONNX graph: maps stored as unsigned integers, which runtimes are fast with."""

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from torch import nn

from yolo_dist.compress.quantization.activations import ActivationQuantizer
from yolo_dist.compress.quantization.grid import Grid
from yolo_dist.export.graph import INTEGERS_OF_16_BITS, Graph

POWER_OF_TWO = 0.5
"""Mantissa of 2^k."""
AWAY_FROM_ZERO = {np.uint8: 1 - 2**-20, np.uint16: 1 - 2**-23}
"""QuantizeLinear rounds halves to even; on a scale that is smaller by so much they go away from zero, as in training.
Only between scales 2^k are halves frequent. Step n moves by n times as much, so that of 65535 steps none may move more
than float32 needs."""


@dataclass(frozen=True)
class StoredGrid:
    """A grid as a file has it: unsigned integers, a signed grid moved up by half of their number.

    Attributes:
        scale: distance of two neighbours.
        zero_point: the integer that stands for 0.
        lowest, highest: ends of the grid.
        dtype: of the integers: uint8, or uint16 for more than 8 bits.
        rounding_scale: the scale by which numbers are rounded; `scale`, or a little less.
    """

    scale: float
    zero_point: int
    lowest: int
    highest: int
    dtype: type[np.unsignedinteger[Any]]
    rounding_scale: float

    @classmethod
    def of(cls, grid: Grid) -> "StoredGrid":
        """A grid of the network."""
        dtype = np.uint8 if grid.highest - grid.lowest < 2**8 else np.uint16
        shift = 0 if grid.lowest >= 0 else (int(np.iinfo(dtype).max) + 1) // 2
        ends = int(grid.zero_point) + shift, grid.lowest + shift, grid.highest + shift
        scale = float(grid.scale)
        shifts = math.frexp(scale)[0] == POWER_OF_TWO
        return cls(scale, *ends, dtype, scale * AWAY_FROM_ZERO[dtype] if shifts else scale)

    @property
    def clipped(self) -> bool:
        """Whether its ends are not those of the integers."""
        return (self.lowest, self.highest) != (0, int(np.iinfo(self.dtype).max))

    @property
    def open(self) -> "StoredGrid":
        """The same steps to the ends of the integers: for numbers that lie on the grid already."""
        return replace(self, lowest=0, highest=int(np.iinfo(self.dtype).max), rounding_scale=self.scale)

    def clamped(self, activation: nn.Module) -> "StoredGrid":
        """The part of the grid that a clamp leaves; its ends go to their nearest steps, as numbers do."""
        match activation:
            case nn.ReLU():
                return replace(self, lowest=max(self.lowest, self.zero_point))
            case nn.ReLU6():
                six = self.zero_point + math.floor(np.float32(6) / np.float32(self.scale) + 0.5)
                return replace(self, lowest=max(self.lowest, self.zero_point), highest=min(self.highest, six))
        return self


def add_grid(graph: Graph, features: str, grid: StoredGrid | ActivationQuantizer) -> tuple[str, StoredGrid]:
    """Put real numbers on a grid.

    Returns:
        Name of the real numbers on it, and the grid as it is stored.

    Raises:
        NotExportable: the opset has no integers of so many bits.
    """
    stored = grid if isinstance(grid, StoredGrid) else StoredGrid.of(grid.grid())
    wide = stored.dtype is np.uint16
    if wide:
        graph.require(INTEGERS_OF_16_BITS, "an activation of more than 8 bits")
    zero_point = graph.constant(stored.zero_point, stored.dtype)
    ends = np.array([stored.lowest, stored.highest])
    if stored.clipped and wide:  # runtimes do not compare uint16
        ends = (ends - stored.zero_point) * np.float32(stored.scale)
        features = graph.add("Clip", features, *(graph.constant(end) for end in ends))
    steps = graph.add("QuantizeLinear", features, graph.constant(stored.rounding_scale), zero_point)
    if stored.clipped and not wide:  # after rounding, so that the operator before stays one of integers
        steps = graph.add("Clip", steps, *(graph.constant(end, np.uint8) for end in ends))
    return graph.add("DequantizeLinear", steps, graph.constant(stored.scale), zero_point), stored
