"""Rounding against Python's exact decimals, and its gradient against the definition."""

from decimal import ROUND_HALF_UP, Decimal

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from yolo_dist.compress.quantization.rounding import round_half_away, round_to_grid, snap


def exactly(value: float) -> float:
    """Half away from zero, decided on the float's exact decimal expansion."""
    return float(Decimal(value).quantize(Decimal(1), ROUND_HALF_UP)) if abs(value) < 2**24 else value


def rounded(value: float) -> float:
    return round_half_away(torch.tensor(value)).item()


@pytest.mark.parametrize(
    ("value", "whole"),
    [
        (0.5, 1),
        (-0.5, -1),
        (1.5, 2),
        (2.5, 3),
        (-2.5, -3),
        pytest.param(0.49999997, 0, id="the largest float under a half"),
        (-0.49999997, 0),
        (2.4999998, 2),
        pytest.param(4194303.5, 4194304, id="the last halves"),
        (-8388607.5, -8388608),
        pytest.param(8388609.0, 8388609, id="whole, where adding a half would round up"),
        (16777215.0, 16777215),
        (1e30, 1e30),
        (-3e38, -3e38),
        (1e-45, 0),
    ],
)
def test_halves_go_away_from_zero_and_nothing_else_does(value: float, whole: float) -> None:
    assert rounded(value) == torch.tensor(whole).item()


def test_not_a_number_stays_none() -> None:
    assert torch.isnan(round_half_away(torch.tensor([float("nan")]))).all()


@given(st.floats(width=32, allow_nan=False, allow_infinity=False))
def test_every_float_is_rounded_as_decimals_round_it(value: float) -> None:
    assert rounded(value) == exactly(value)


def test_all_halves_and_their_neighbours_up_to_a_thousand() -> None:
    halves = torch.arange(-1000, 1000) + 0.5
    up, down = (torch.nextafter(halves, torch.full_like(halves, end)) for end in (torch.inf, -torch.inf))
    values = torch.cat([halves, up, down])
    assert round_half_away(values).tolist() == [exactly(value) for value in values.tolist()]


def test_bfloat16_is_rounded_exactly_too_and_what_was_given_stays() -> None:
    values = torch.arange(-300, 300, dtype=torch.bfloat16) / 2
    before = values.clone()
    assert round_half_away(values).tolist() == [exactly(value) for value in values.tolist()]
    assert torch.equal(values, before)


def clamped(values: Tensor, scale: float, zero_point: int, lowest: int, highest: int) -> list[int]:
    quotients = (values / scale).tolist()
    return [min(max(int(exactly(quotient)) + zero_point, lowest), highest) for quotient in quotients]


GRIDS = [(0.5, 0, -8, 7), (0.25, 3, 0, 15), (1.0, 0, 0, 3), (0.3, 128, 0, 255)]
every_grid = pytest.mark.parametrize(("scale", "zero_point", "lowest", "highest"), GRIDS)


@every_grid
def test_numbers_become_the_nearest_steps_within_the_ends(
    scale: float, zero_point: int, lowest: int, highest: int
) -> None:
    values = torch.linspace(-50, 50, 1001)
    steps = round_to_grid(values, torch.tensor(scale), torch.tensor(float(zero_point)), lowest, highest)
    expected = clamped(values, torch.tensor(scale).item(), zero_point, lowest, highest)
    assert steps.tolist() == expected
    numbers = snap(values, torch.tensor(scale), torch.tensor(float(zero_point)), lowest, highest)
    torch.testing.assert_close(numbers, (torch.tensor(expected) - zero_point) * scale)


@every_grid
def test_torchs_own_fake_quantisation_agrees_away_from_ties(
    scale: float, zero_point: int, lowest: int, highest: int
) -> None:
    quotients = torch.arange(-400, 400)[:, None] + torch.tensor([-0.49, -0.2, 0, 0.3, 0.49])
    values = (quotients * scale).requires_grad_()
    own = snap(values, torch.tensor(scale), torch.tensor(float(zero_point)), lowest, highest)
    (own_gradient,) = torch.autograd.grad(own.sum(), values)
    torchs = torch.fake_quantize_per_tensor_affine(values, scale, zero_point, lowest, highest)
    (torchs_gradient,) = torch.autograd.grad(torchs.sum(), values)
    torch.testing.assert_close(own, torchs)
    assert torch.equal(own_gradient, torchs_gradient)


@every_grid
def test_gradients_pass_straight_through_inside_and_stop_outside(
    scale: float, zero_point: int, lowest: int, highest: int
) -> None:
    values = torch.linspace(-50, 50, 1001, requires_grad=True)
    weights = torch.randn(values.shape, generator=torch.Generator().manual_seed(0))
    grid = (torch.tensor(scale), torch.tensor(float(zero_point)), lowest, highest)
    whole = [int(exactly(q)) + zero_point for q in (values / grid[0]).tolist()]
    inside = torch.tensor([lowest <= n <= highest for n in whole])
    assert inside.any()
    (of_values,) = torch.autograd.grad((snap(values, *grid) * weights).sum(), values)
    torch.testing.assert_close(of_values, weights * inside)
    (of_steps,) = torch.autograd.grad((round_to_grid(values, *grid) * weights).sum(), values)
    torch.testing.assert_close(of_steps, weights * inside / scale)


def test_every_channel_may_have_its_own_grid() -> None:
    values = torch.randn(4, 3, 5, 5, generator=torch.Generator().manual_seed(0))
    scale, zero_point = torch.tensor([0.1, 0.5, 0.02]).view(3, 1, 1), torch.tensor([1.0, -2.0, 0.0]).view(3, 1, 1)
    whole = snap(values, scale, zero_point, -8, 7)
    for channel in range(3):
        alone = snap(values[:, channel], scale[channel], zero_point[channel], -8, 7)
        assert torch.equal(whole[:, channel], alone)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_numbers_keep_their_dtype_and_steps_are_float32(dtype: torch.dtype) -> None:
    values = torch.linspace(-3, 3, 50).to(dtype).requires_grad_()
    grid = (torch.tensor(0.125), torch.tensor(0.0), -16, 15)
    numbers, steps = snap(values, *grid), round_to_grid(values, *grid)
    assert (numbers.dtype, steps.dtype) == (dtype, torch.float32)
    assert torch.equal(numbers.float(), steps * 0.125)
    (gradient,) = torch.autograd.grad(numbers.sum(), values)
    assert gradient.dtype == dtype
    assert torch.equal(gradient, ((values >= -2.0625) & (values < 1.9375)).to(dtype))
