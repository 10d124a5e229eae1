"""Rounding to whole numbers, and its gradient."""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

BELOW_HALF = 0.5 - 2.0**-25
"""The largest float32 under a half; a half itself, added to this, would give 1."""
WHOLE_IN_BFLOAT16 = 256
"""Whole numbers up to here are exact in bfloat16."""


def round_half_away(values: Tensor) -> Tensor:
    """Nearest whole number, halves away from zero: float32 of the same shape, exact for every float32."""
    values = values.float()
    return values.abs().add_(BELOW_HALF).floor_().copysign_(values)


class _Snap(torch.autograd.Function):
    """To the nearest point of a grid, as whole numbers or as the numbers they stand for."""

    @staticmethod
    def forward(
        ctx: Any, values: Tensor, scale: Tensor, zero_point: Tensor, lowest: int, highest: int, as_steps: bool
    ) -> Tensor:
        steps = round_half_away(values.float() / scale).add_(zero_point)
        exact = max(-lowest, highest) < WHOLE_IN_BFLOAT16
        ctx.save_for_backward(steps.bfloat16() if exact else steps.clone(), scale)
        ctx.ends, ctx.as_steps = (lowest - 0.5, highest + 0.5), as_steps
        steps.clamp_(lowest, highest)
        return steps if as_steps else steps.sub_(zero_point).mul_(scale).to(values.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        steps, scale = ctx.saved_tensors
        inside = torch.ops.aten.hardtanh_backward(gradient, steps.to(gradient.dtype), *ctx.ends)
        return inside / scale if ctx.as_steps else inside, None, None, None, None, None


def round_to_grid(values: Tensor, scale: Tensor, zero_point: Tensor, lowest: int, highest: int) -> Tensor:
    """Whole numbers clamp(round(x / scale) + zero point, lowest, highest), float32 of `values`' shape.

    The gradient passes straight through the rounding (Bengio et al. 2013), and is zero where the clamp was active.

    Args:
        values: real numbers.
        scale, zero_point: of one grid, or broadcastable to `values`.
        lowest, highest: ends of the grid.
    """
    return _Snap.apply(values, scale, zero_point, lowest, highest, True)  # type: ignore[no-any-return, no-untyped-call]


def snap(values: Tensor, scale: Tensor, zero_point: Tensor, lowest: int, highest: int) -> Tensor:
    """`values` on the nearest points of a grid, in their own dtype; gradients as in `round_to_grid`."""
    return _Snap.apply(values, scale, zero_point, lowest, highest, False)  # type: ignore[no-any-return, no-untyped-call]
