"""Grids against a few lines of NumPy, powers of two against all of them."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from yolo_dist.compress.quantization.grid import Grid, GridRule, lay_grid, nearest_power_of_two

RULES: list[GridRule] = ["symmetric", "asymmetric", "positive"]
ranges = st.tuples(st.floats(-100, 0.5, width=32), st.floats(-0.5, 100, width=32)).map(sorted)


def laid(low: float, high: float, bits: int, rule: GridRule, power_of_two: bool = False) -> Grid:
    return lay_grid(torch.tensor(low), torch.tensor(high), bits, rule, power_of_two)


def numbers(grid: Grid) -> list[float]:
    """All that the grid can stand for."""
    values: list[float] = grid.values(torch.arange(grid.lowest, grid.highest + 1)).tolist()
    return values


@pytest.mark.parametrize(
    ("low", "high", "bits", "rule", "scale", "zero_point", "ends"),
    [
        (-1.0, 0.5, 8, "symmetric", 1 / 127, 0, (-128, 127)),
        (-0.5, 14.0, 4, "symmetric", 2.0, 0, (-8, 7)),
        (-1.0, 1.0, 2, "symmetric", 1.0, 0, (-2, 1)),
        (-1.0, 2.0, 2, "asymmetric", 1.0, 1, (0, 3)),
        (-0.25, 1.0, 3, "asymmetric", 1.25 / 7, 1, (0, 7)),
        pytest.param(2.0, 3.0, 2, "asymmetric", 1.0, 0, (0, 3), id="a range over zero includes it"),
        pytest.param(-3.0, -2.0, 2, "asymmetric", 1.0, 3, (0, 3), id="a range under zero includes it"),
        (-1.0, 6.0, 8, "positive", 6 / 255, 0, (0, 255)),
        (0.0, 65535.0, 16, "positive", 1.0, 0, (0, 65535)),
        pytest.param(0.0, 0.0, 8, "asymmetric", 1.0, 0, (0, 255), id="nothing but zero"),
        pytest.param(0.0, 1e-30, 8, "symmetric", 1.0, 0, (-128, 127), id="as good as nothing"),
        pytest.param(-3.0, -1.0, 8, "positive", 1.0, 0, (0, 255), id="nothing positive"),
    ],
)
def test_a_grid_lies_as_its_rule_says(
    low: float, high: float, bits: int, rule: GridRule, scale: float, zero_point: int, ends: tuple[int, int]
) -> None:
    grid = laid(low, high, bits, rule)
    assert grid.scale.item() == pytest.approx(scale, rel=1e-6)
    assert grid.zero_point.item() == zero_point
    assert (grid.lowest, grid.highest) == ends


@given(ranges, st.integers(2, 16), st.sampled_from(RULES), st.booleans())
def test_zero_is_always_a_number_of_the_grid_and_every_number_is_its_own_nearest(
    ends: list[float], bits: int, rule: GridRule, power_of_two: bool
) -> None:
    grid = laid(ends[0], ends[1], bits, rule, power_of_two)
    assert grid.highest - grid.lowest == 2**bits - 1
    assert grid.lowest <= grid.zero_point.item() <= grid.highest
    assert grid.snap(torch.zeros(())).item() == 0
    steps = torch.arange(grid.lowest, grid.highest + 1, dtype=torch.float32)
    assert torch.equal(grid.steps(grid.values(steps)), steps)


@given(ranges, st.integers(2, 12), st.sampled_from(RULES))
def test_numbers_of_the_range_move_by_half_a_step_at_most(ends: list[float], bits: int, rule: GridRule) -> None:
    """And by another half where the zero point, which is whole, shifts the ends of an asymmetric range."""
    grid = laid(ends[0], ends[1], bits, rule)
    values = torch.linspace(0 if rule == "positive" else min(ends[0], 0), max(ends[1], 0), 257)
    allowed = (1.0 if rule == "asymmetric" else 0.5) * grid.scale.item()
    assert (grid.snap(values) - values).abs().max().item() <= allowed * 1.001 + 1e-6 * max(map(abs, ends))


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("power_of_two", [False, True])
def test_snapping_finds_the_nearest_of_all_numbers(rule: GridRule, power_of_two: bool) -> None:
    grid = laid(-1.3, 2.2, 4, rule, power_of_two)
    values = torch.linspace(-3, 3, 997)
    nearest = np.array(numbers(grid))[np.abs(np.array(numbers(grid)) - values.numpy()[:, None]).argmin(1)]
    np.testing.assert_allclose(grid.snap(values), nearest, atol=1e-6)


def test_ranges_of_channels_give_each_its_grid() -> None:
    low, high = torch.tensor([-1.0, 0.0, -2.0]), torch.tensor([1.0, 0.0, 5.0])
    for rule in RULES:
        together = lay_grid(low, high, 8, rule)
        for channel in range(3):
            alone = lay_grid(low[channel], high[channel], 8, rule)
            assert together.scale[channel] == alone.scale
            assert together.zero_point[channel] == alone.zero_point


POWERS = [2.0**k for k in range(-126, 128)]


def nearest_of_all(value: float) -> float:
    """The power of two at the least distance, the lower of two."""
    return min(POWERS, key=lambda power: (abs(power - value), power))


@pytest.mark.parametrize(
    ("value", "power"),
    [(1.0, 1.0), (3.0, 2.0), (3.0000002, 4.0), (0.75, 0.5), (0.7500001, 1.0), (5.9, 4.0), (6.1, 8.0), (1 / 255, 2**-8)],
)
def test_powers_of_two_are_nearest_in_the_linear_sense_and_ties_go_down(value: float, power: float) -> None:
    assert nearest_power_of_two(torch.tensor(value)).item() == power


@given(st.floats(2.0**-120, 2.0**120, width=32))
def test_no_power_of_two_is_nearer(value: float) -> None:
    assert nearest_power_of_two(torch.tensor(value)).item() == nearest_of_all(value)


@given(ranges, st.integers(2, 16), st.sampled_from(RULES))
def test_scales_that_are_powers_of_two_are_those_nearest_to_the_free_ones(
    ends: list[float], bits: int, rule: GridRule
) -> None:
    free, shifted = laid(ends[0], ends[1], bits, rule), laid(ends[0], ends[1], bits, rule, True)
    assert shifted.scale.item() == nearest_of_all(free.scale.item())
    assert math.log2(shifted.scale.item()).is_integer()
