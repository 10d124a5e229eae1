"""Rounding to whole numbers, and its gradient."""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


def round_half_away(values: Tensor) -> Tensor:
    """Nearest whole number, halves away from zero: a new tensor of the same shape and dtype.

    Exact for every float: adding a half and cutting off, the usual way, rounds 0.49999997 up.
    """
    whole = values.trunc()
    return whole.add_(values.sub(whole).mul_(2).trunc_())


class _RoundToGrid(torch.autograd.Function):
    """clamp(round(x / scale) + zero point, lowest, highest), with the gradient of x / scale inside and 0 outside."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, scale: Tensor, zero_point: Tensor, lowest: float, highest: float) -> Tensor:
        steps = round_half_away(values.float() / scale).add_(zero_point)
        ctx.save_for_backward((steps >= lowest).logical_and_(steps <= highest), scale)
        return steps.clamp_(lowest, highest)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        inside, scale = ctx.saved_tensors
        return gradient * inside / scale, None, None, None, None


class _Snap(torch.autograd.Function):
    """To the nearest point of a grid, with gradient 1 inside it and 0 outside."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, scale: Tensor, zero_point: Tensor, lowest: float, highest: float) -> Tensor:
        steps = round_half_away(values.float().div(scale)).add_(zero_point)
        ctx.save_for_backward((steps >= lowest).logical_and_(steps <= highest))
        return steps.clamp_(lowest, highest).sub_(zero_point).mul_(scale).to(values.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        (inside,) = ctx.saved_tensors
        return gradient * inside, None, None, None, None


def round_to_grid(values: Tensor, scale: Tensor, zero_point: Tensor, lowest: int, highest: int) -> Tensor:
    """Whole numbers clamp(round(x / scale) + zero point, lowest, highest), float32 of `values`' shape.

    The gradient passes straight through the rounding (Bengio et al. 2013), and is zero where the clamp was active.

    Args:
        values: real numbers.
        scale, zero_point: of one grid, or broadcastable to `values`.
        lowest, highest: ends of the grid.
    """
    return _RoundToGrid.apply(values, scale, zero_point, lowest, highest)  # type: ignore[no-any-return, no-untyped-call]


def snap(values: Tensor, scale: Tensor, zero_point: Tensor, lowest: int, highest: int) -> Tensor:
    """`values` on the nearest points of a grid, in their own dtype; gradients as in `round_to_grid`."""
    return _Snap.apply(values, scale, zero_point, lowest, highest)  # type: ignore[no-any-return, no-untyped-call]
