"""Fronts, hypervolumes and knees, against brute force and closed forms."""

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from yolo_dist.tune import pareto
from yolo_dist.tune.pareto import Losses, front_of, hypervolume, hypervolumes, knee_of

CELLS = 4
points = st.lists(st.tuples(*[st.integers(0, CELLS)] * 3), min_size=1, max_size=8)


@settings(max_examples=60, deadline=None)
@given(points)
def test_hypervolume_counts_the_cells_that_some_point_dominates(losses: list[tuple[int, ...]]) -> None:
    cells = product(range(CELLS), repeat=3)
    expected = sum(any(all(np.array(point) <= cell) for point in losses) for cell in map(np.array, cells))
    assert hypervolume(losses, [CELLS] * 3) == pytest.approx(expected)


@settings(max_examples=60, deadline=None)
@given(points)
def test_hypervolumes_point_by_point_are_those_of_all_points_so_far(losses: list[tuple[int, ...]]) -> None:
    expected = [hypervolume(losses[: number + 1], [CELLS] * 3) for number in range(len(losses))]
    assert hypervolumes(losses, [CELLS] * 3) == pytest.approx(expected)


def test_hypervolumes_of_a_search_slice_few_points_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    sliced: list[int] = []

    def counted(losses: Losses, reference: list[float]) -> float:
        sliced.append(len(losses))
        return hypervolume(losses, reference)

    monkeypatch.setattr(pareto, "hypervolume", counted)
    hypervolumes(np.random.default_rng(0).uniform(size=(200, 3)), [1, 1, 1])
    assert sum(sliced) < 1000  # of all points so far it would be 20 100


@settings(max_examples=60, deadline=None)
@given(points)
def test_nothing_beats_the_front_and_the_front_beats_all_else(losses: list[tuple[int, ...]]) -> None:
    front = set(front_of(losses))

    def beats(one: tuple[int, ...], other: tuple[int, ...]) -> bool:
        return one != other and all(a <= b for a, b in zip(one, other, strict=True))

    for number, point in enumerate(losses):
        assert (number in front) == (not any(beats(other, point) for other in losses))


def test_two_rectangles_cover_their_union() -> None:
    assert hypervolume([(1, 2), (2, 1)], [3, 3]) == 3


def test_no_points_cover_nothing_and_have_no_front() -> None:
    assert hypervolume(np.zeros((0, 2)), [1, 1]) == 0
    assert front_of(np.zeros((0, 2))) == []


def test_the_knee_is_where_both_objectives_are_nearly_at_their_best() -> None:
    assert knee_of([(0.0, 100.0), (0.1, 10.0), (1.0, 0.0)]) == 1


def test_the_knee_of_three_objectives_has_the_smallest_sum_of_scaled_losses() -> None:
    ends = [(0.0, 10.0, 100.0), (1.0, 0.0, 40.0), (1.0, 10.0, 0.0)]
    farthest_from_their_plane, nearest_to_the_best = (0.3, 9.0, 30.0), (0.45, 2.0, 55.0)
    assert knee_of([*ends, farthest_from_their_plane, nearest_to_the_best]) == 4


def test_the_knee_of_one_objective_is_the_best() -> None:
    assert knee_of([[3.0], [1.0], [2.0]]) == 1
