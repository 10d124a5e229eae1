"""The picture of anchors: every box and every anchor has its place in it."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from numpy.typing import NDArray

from yolo_dist.data.anchor_plot import SIDE, plot_anchors
from yolo_dist.data.anchors import Anchors, kmeans_anchors
from yolo_dist.data.drawing import class_colour
from yolo_dist.data.image import Pixels

ANCHORS = Anchors(np.array([(10, 10), (100, 100)], np.float32), 1.0, 1.0)


def middle(picture: Pixels, colour: tuple[int, int, int]) -> NDArray[np.float64]:
    """(row, column) of the middle of what is drawn in a colour."""
    return np.asarray(np.argwhere((picture == colour).all(axis=2)).mean(axis=0))


def test_larger_anchors_are_further_right_and_up_each_in_its_colour() -> None:
    sizes = np.array([(9, 11), (110, 90), (1, 1), (400, 400)], np.float32)
    picture = plot_anchors(sizes, ANCHORS, "two anchors")
    assert picture.shape == (SIDE, SIDE, 3)
    small, large = (middle(picture, class_colour(number)) for number in range(2))
    assert large[1] > small[1] + 100
    assert large[0] < small[0] - 100


def test_boxes_are_drawn_in_the_colour_of_their_anchor_but_paler() -> None:
    few, many = (
        plot_anchors(np.array(sizes, np.float32), ANCHORS, "title")
        for sizes in ([(1, 1), (400, 400)], [(1, 1), (400, 400), (30, 12), (60, 200)])
    )
    changed = (few != many).any(axis=2)
    assert 20 < changed.sum() < 200


@settings(deadline=None, max_examples=20)
@given(npst.arrays(np.float32, st.tuples(st.integers(1, 30), st.just(2)), elements=st.floats(0, 4000, width=32)))
def test_any_boxes_can_be_drawn(sizes: NDArray[np.float32]) -> None:
    picture = plot_anchors(sizes, kmeans_anchors(sizes, 3), "any")
    assert picture.shape == (SIDE, SIDE, 3)
    assert (picture != 255).any()


@pytest.mark.parametrize("count", [1, 20_000, 50_001])
def test_very_many_boxes_are_thinned_out_not_refused(count: int) -> None:
    sizes = np.random.default_rng(0).uniform(5, 200, (count, 2)).astype(np.float32)
    assert plot_anchors(sizes, ANCHORS, "many").shape == (SIDE, SIDE, 3)
