"""Observers against NumPy, over batches of activations like those of a network."""

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from torch import Tensor

from yolo_dist.compress.quantization.grid import Grid, GridRule, lay_grid
from yolo_dist.compress.quantization.ranges import (
    BINS,
    Histogram,
    MinMax,
    MovingAverage,
    RangeObserver,
    least_error,
    without_extremes,
)


def batches(kind: str, count: int = 4, size: int = 6050) -> list[Tensor]:
    """Batches of one activation."""
    generator = torch.Generator().manual_seed(0)
    values = torch.randn(count, size, generator=generator)
    match kind:
        case "normal":
            pass
        case "rectified":
            values.clamp_(min=0)
        case "leaky":
            values = torch.where(values < 0, values * 0.1, values)
        case "outliers":
            values[1, :3] = torch.tensor([40.0, -35.0, 50.0])
        case "far from zero":
            values += 20
    return list(values.view(count, 5, 10, -1))


KINDS = ("normal", "rectified", "leaky", "outliers", "far from zero")
every_kind = pytest.mark.parametrize("kind", KINDS)


def seen(observer: RangeObserver, values: Sequence[Tensor]) -> tuple[float, float]:
    for batch in values:
        observer.observe(batch)
    low, high = observer.range()
    return float(low), float(high)


def flat(values: Sequence[Tensor]) -> Tensor:
    return torch.cat([batch.flatten() for batch in values])


@every_kind
def test_minmax_is_the_smallest_and_largest_number_of_all_and_zero(kind: str) -> None:
    numbers = flat(batches(kind)).numpy()
    assert seen(MinMax(), batches(kind)) == (min(numbers.min(), 0), max(numbers.max(), 0))


def test_a_moving_average_moves_by_a_tenth_a_batch() -> None:
    ends = [(-1.0, 2.0), (-3.0, 1.0), (0.0, 7.0)]
    low, high = seen(MovingAverage(), [torch.tensor([low, 0.3, high]) for low, high in ends])
    assert low == pytest.approx(0.9 * (0.9 * -1 + 0.1 * -3) + 0.1 * 0)
    assert high == pytest.approx(0.9 * (0.9 * 2 + 0.1 * 1) + 0.1 * 7)


def histogram(values: Sequence[Tensor], rule: GridRule | None = None, bits: int = 8) -> tuple[float, float]:
    """The range that a histogram chooses: by error on a grid, or by percentiles without one."""
    rough = MinMax()
    seen(rough, values)

    def lay(low: Tensor, high: Tensor) -> Grid:
        assert rule is not None
        return lay_grid(low, high, bits, rule)

    return seen(Histogram(*rough.range(), without_extremes if rule is None else least_error(lay)), values)


@every_kind
def test_percentiles_are_numpys_to_a_bin(kind: str) -> None:
    numbers = flat(batches(kind)).numpy()
    low, high = histogram(batches(kind))
    expected = np.percentile(numbers, [0.005, 99.995], method="inverted_cdf")
    edges = (min(numbers.min(), 0), max(numbers.max(), 0))
    np.testing.assert_allclose((low, high), expected, atol=1.01 * (edges[1] - edges[0]) / BINS)


def squared_error(values: Sequence[Tensor], ends: tuple[float, float], bits: int, rule: GridRule) -> float:
    numbers = flat(values)
    grid = lay_grid(torch.tensor(ends[0]), torch.tensor(ends[1]), bits, rule)
    return float((grid.snap(numbers) - numbers).double().square().mean())


@every_kind
@pytest.mark.parametrize("rule", ["symmetric", "asymmetric"])
@pytest.mark.parametrize("bits", [2, 4, 8])
def test_mse_is_never_worse_than_minmax(kind: str, rule: GridRule, bits: int) -> None:
    values = batches(kind)
    chosen = squared_error(values, histogram(values, rule, bits), bits, rule)
    assert chosen <= squared_error(values, seen(MinMax(), values), bits, rule) * 1.001


@pytest.mark.parametrize("rule", ["symmetric", "asymmetric"])
def test_mse_leaves_out_what_costs_more_than_it_is_worth(rule: GridRule) -> None:
    values = batches("normal")
    whole = squared_error(values, seen(MinMax(), values), 4, rule)
    assert squared_error(values, histogram(values, rule, 4), 4, rule) < 0.75 * whole


def test_mse_cuts_both_ends_of_a_symmetric_grid() -> None:
    """Cut alone, neither end would change the scale."""
    mirrored = [torch.cat([batch, -batch]) for batch in batches("normal")]
    low, high = histogram(mirrored, "symmetric", 4)
    assert low == -high
    assert high < 0.8 * seen(MinMax(), mirrored)[1]


def test_mse_is_the_best_of_all_cuts_of_a_rectified_activation() -> None:
    values = batches("rectified")
    _, high = histogram(values, "positive", 4)
    largest = float(flat(values).max())
    errors = [squared_error(values, (0, largest * share), 4, "positive") for share in np.linspace(0.2, 1, 81)]
    assert squared_error(values, (0, high), 4, "positive") == pytest.approx(min(errors), rel=0.02)


@pytest.mark.parametrize("rule", [None, "symmetric", "asymmetric"])
def test_an_activation_that_is_always_zero_has_a_range_of_zero(rule: GridRule | None) -> None:
    zeros = [torch.zeros(2, 3), torch.zeros(2, 3)]
    assert seen(MinMax(), zeros) == seen(MovingAverage(), zeros) == histogram(zeros, rule) == (0, 0)


@pytest.mark.parametrize("observer", [MinMax, MovingAverage])
def test_what_is_not_a_number_shows_in_the_range(observer: type[MinMax] | type[MovingAverage]) -> None:
    assert np.isnan(seen(observer(), [torch.tensor([1.0, float("nan")]), torch.ones(2)])).all()


def test_ranges_are_float32_whatever_the_network_computes_in() -> None:
    for observer in (MinMax(), MovingAverage()):
        observer.observe(torch.tensor([-1.0, 2.5], dtype=torch.bfloat16))
        assert [(float(end), end.dtype) for end in observer.range()] == [(-1.0, torch.float32), (2.5, torch.float32)]
