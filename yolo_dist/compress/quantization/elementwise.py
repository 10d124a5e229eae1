"""Chains of functions of each number alone, which need less memory in training than their links."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

CACHED = 2**18
"""Numbers that a processor takes through the chain together, so that they stay in its cache; at least one image."""


class _Elementwise(torch.autograd.Function):
    """A function of each number alone, of which only the slope is remembered."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, function: Callable[[Tensor], Tensor]) -> Tensor:
        results, slopes = torch.empty_like(values), torch.empty_like(values)
        rows = max(1, CACHED * len(values) // values.numel()) if values.device.type == "cpu" else len(values)
        for part, result, slope in zip(*(tensor.split(rows) for tensor in (values, results, slopes)), strict=True):
            with torch.enable_grad():
                start = part.detach().requires_grad_()
                end = function(start)
                slope.copy_(torch.autograd.grad(end, start, torch.ones_like(end))[0])
            result.copy_(end.detach())
        ctx.save_for_backward(slopes)
        return results

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (slope,) = ctx.saved_tensors
        return gradient * slope, None


def elementwise(function: Callable[[Tensor], Tensor], values: Tensor) -> Tensor:
    """`function(values)` for a chain of functions of each number alone.

    Gradients are those of the chain, but it keeps one number for each of `values` until backward, not one a link.
    """
    if not (torch.is_grad_enabled() and values.requires_grad):
        return function(values)
    return _Elementwise.apply(values, function)  # type: ignore[no-any-return, no-untyped-call]
