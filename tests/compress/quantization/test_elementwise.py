"""A chain that remembers only slopes gives what its links give, forwards and backwards."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from yolo_dist.compress.quantization.elementwise import CACHED, elementwise
from yolo_dist.compress.quantization.grid import lay_grid

GRID = lay_grid(torch.tensor(-2.0), torch.tensor(1.5), 8, "asymmetric")
CHAINS: dict[str, Callable[[Tensor], Tensor]] = {
    "nothing": lambda values: values,
    "mish": lambda values: F.mish(values) * 2,
    "on a grid, leaky, on a grid": lambda values: GRID.snap(F.leaky_relu(GRID.snap(values), 0.1)),
}


@pytest.mark.parametrize("shape", [(3, 2, 5, 7), (2, CACHED // 64 + 1, 8, 8)], ids=["small", "image by image"])
@pytest.mark.parametrize("chain", CHAINS.values(), ids=CHAINS)
def test_values_and_gradients_are_those_of_the_links(chain: Callable[[Tensor], Tensor], shape: tuple[int, ...]) -> None:
    generator = torch.Generator().manual_seed(1)
    values = torch.randn(shape, generator=generator).to(memory_format=torch.channels_last)
    ours, theirs = values.clone().requires_grad_(), values.clone().requires_grad_()
    gradient = torch.randn(shape, generator=generator)
    result, expected = elementwise(chain, ours), chain(theirs)
    torch.testing.assert_close(result, expected, rtol=1e-5, atol=1e-6)
    result.backward(gradient)
    expected.backward(gradient)
    assert ours.grad is not None
    assert theirs.grad is not None
    torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-5, atol=1e-6)


def test_a_chain_keeps_one_number_for_each_value() -> None:
    values = torch.randn(2, 3, 4, 4, requires_grad=True)
    function = elementwise(CHAINS["on a grid, leaky, on a grid"], values).grad_fn
    assert [tensor.shape for tensor in function.saved_tensors] == [values.shape]  # type: ignore[union-attr]


def test_without_gradients_nothing_is_remembered() -> None:
    with torch.no_grad():
        assert elementwise(torch.exp, torch.zeros(1, 2, 2, 2)).grad_fn is None
