"""Gradients that lie in memory as their parameters do, which is where workers add them up."""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


class _LaidOut(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, parameter: Tensor) -> Tensor:
        ctx.strides = parameter.stride()
        return parameter.view_as(parameter)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        if gradient.stride() == ctx.strides:
            return gradient
        return gradient.new_empty_strided(gradient.shape, ctx.strides).copy_(gradient)


def laid_out(parameter: Tensor) -> Tensor:
    """A parameter whose gradient will have its strides, whatever is computed from it.

    Data-parallel workers sum gradients in buffers that have them; others are copied there, with a warning.
    """
    return _LaidOut.apply(parameter)  # type: ignore[no-any-return, no-untyped-call]
