"""The order of tiles, by hand."""

import numpy as np
import pytest

from yolo_dist.errors import ConfigError
from yolo_dist.export.tiles import parse_tile, tile_order


def test_tiles_of_two_by_two_of_three_by_three_filters_of_one_weight() -> None:
    weight = np.array([["a1", "a2", "a3"], ["b1", "b2", "b3"], ["c1", "c2", "c3"]])
    order = tile_order((3, 3, 1, 1), (2, 2))
    assert weight.ravel()[order].tolist() == ["a1", "a2", "b1", "b2", "a3", "b3", "c1", "c2", "c3"]


def test_within_a_tile_windows_stay_together() -> None:
    assert tile_order((2, 2, 1, 3), (2, 1)).tolist() == [0, 1, 2, 6, 7, 8, 3, 4, 5, 9, 10, 11]


@pytest.mark.parametrize("tile", [(1, 1), (2, 3), (4, 5), (100, 100)])
def test_every_weight_comes_once(tile: tuple[int, int]) -> None:
    assert sorted(tile_order((5, 7, 3, 3), tile)) == list(range(5 * 7 * 9))


def test_a_tile_is_written_as_output_times_input_channels() -> None:
    assert parse_tile("32x4") == (32, 4)


@pytest.mark.parametrize("text", ["", "32", "0x4", "4x0", "-1x4", "3.5x4", "4x4x4", "４x4"])
def test_anything_else_is_no_tile(text: str) -> None:
    with pytest.raises(ConfigError, match="TMxTN"):
        parse_tile(text)
