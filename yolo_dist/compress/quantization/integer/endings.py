"""How a layer ends: accumulators are rescaled to a grid, and an activation is a clamp or a table."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from yolo_dist.compress.quantization.activations import ActivationQuantizer
from yolo_dist.compress.quantization.integer.rescaling import IntegerGrid, Rescaling, multiplier_and_shift

Activation = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Ending:
    """The end of a layer of a quantised network.

    Attributes:
        output: quantiser of what leaves it.
        activation: of real numbers; where there is no `before`, one that clamps.
        before: quantiser of what a table is indexed by.
    """

    output: ActivationQuantizer
    activation: Activation
    before: ActivationQuantizer | None = None

    @property
    def grid(self) -> IntegerGrid:
        """The grid that accumulators are rescaled to."""
        return IntegerGrid.of((self.before or self.output).grid())

    @property
    def ends(self) -> tuple[int, int]:
        """Its lowest and highest step, those that an activation lets through if it clamps."""
        ends = torch.tensor([self.grid.lowest, self.grid.highest])
        if self.before is None:
            ends = self.grid.steps(self.activation(self.grid.values(ends)))
        return int(ends[0]), int(ends[1])

    def table(self) -> Tensor:
        """The output's step for each step of the grid before the activation, int64; by the code that simulates it."""
        indices = torch.arange(self.grid.lowest, self.grid.highest + 1)
        return IntegerGrid.of(self.output.grid()).steps(self.activation(self.grid.values(indices)))

    def rescaling(self, unit: Tensor, largest: Tensor) -> Rescaling:
        """From accumulators that count `unit`, float64 [C] or [1], and are at most `largest`."""
        multiplier, shift = multiplier_and_shift(unit / self.grid.scale, largest)
        return Rescaling(shift, self.grid.zero_point, *self.ends, multiplier)


def onto(output: ActivationQuantizer) -> Ending:
    """The end of a layer without an activation."""
    return Ending(output, nn.Identity())
