"""The quantiser of an activation: a module between two layers."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from yolo_dist.compress.quantization.grid import Grid, GridRule, lay_grid
from yolo_dist.errors import NotCalibrated


class ActivationQuantizer(nn.Module):
    """Puts what passes through it on a grid over a range that was measured before.

    Attributes:
        low, high: the range, float32 scalars; NaN until they are measured.
        bits, rule, power_of_two: of the grid, see `lay_grid`.
        active: whether numbers are put on the grid, or only pass.
        watch: called with everything that passes, before it is put on the grid.
    """

    low: Tensor
    high: Tensor

    def __init__(self, bits: int, rule: GridRule, power_of_two: bool) -> None:
        super().__init__()
        self.bits, self.rule, self.power_of_two = bits, rule, power_of_two
        self.active = True
        self.watch: Callable[[Tensor], None] | None = None
        self.register_buffer("low", torch.tensor(float("nan")))
        self.register_buffer("high", torch.tensor(float("nan")))
        self.calibrated = False

    def forward(self, features: Tensor) -> Tensor:
        """The nearest numbers of the grid, in `features`' shape and dtype.

        Raises:
            NotCalibrated: no range was measured.
        """
        if self.watch is not None:
            self.watch(features.detach())
        return self.grid().snap(features) if self.active else features

    def set_range(self, low: Tensor, high: Tensor) -> None:
        """Lay the grid over a range."""
        self.low.copy_(low)
        self.high.copy_(high)
        self.calibrated = True

    def grid(self) -> Grid:
        """The grid over the range."""
        if not self.calibrated:
            raise NotCalibrated(
                "a quantised network has no ranges yet; calibrate it on images, or open a bundle that has them"
            )
        return self.lay(self.low, self.high)

    def lay(self, low: Tensor, high: Tensor) -> Grid:
        """The grid that this quantiser would lay over a range."""
        return lay_grid(low, high, self.bits, self.rule, self.power_of_two)

    def _load_from_state_dict(self, *arguments: Any, **options: Any) -> None:
        super()._load_from_state_dict(*arguments, **options)
        self.calibrated = bool(torch.isfinite(self.low) and torch.isfinite(self.high))
