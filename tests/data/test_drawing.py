"""Drawn boxes and contact sheets."""

from itertools import groupby
from pathlib import Path

import numpy as np
import pytest
from made_datasets import boxes_of, scenes
from upath import UPath

from yolo_dist.data.drawing import class_colour, draw_boxes, outline
from yolo_dist.data.image import decode_image
from yolo_dist.data.manifest import Manifest
from yolo_dist.data.preview import contact_sheet, encode_png
from yolo_dist.data.shards import ShardSet
from yolo_dist.errors import DataError

NAMES = ("cat", "dog", "a rather long name")


def test_neighbouring_classes_have_distant_colours() -> None:
    colours = np.array([class_colour(label) for label in range(80)], float)
    assert len(np.unique(colours, axis=0)) == 80
    assert (np.linalg.norm(np.diff(colours, axis=0), axis=1) > 100).all()


def test_a_box_is_drawn_on_its_border_in_the_colour_of_its_class() -> None:
    image = np.full((100, 120, 3), 90, np.uint8)
    boxes = boxes_of((20, 40, 80, 90))
    drawn = draw_boxes(image, boxes.xyxy, boxes.labels, NAMES)
    assert (image == 90).all()
    for x, y in [(50, 89), (20, 60), (79, 60)]:
        assert tuple(drawn[y, x].tolist()) == class_colour(0)
    assert (drawn[45:85, 25:75] == 90).all()
    assert (drawn[92:] == 90).all()
    assert (drawn[:, 82:] == 90).all()


def test_the_surest_detection_is_drawn_on_top() -> None:
    image = np.zeros((60, 60, 3), np.uint8)
    boxes = boxes_of((10, 30, 50, 50), (10, 30, 50, 50))
    for scores, winner in [((0.9, 0.2), 0), ((0.2, 0.9), 1)]:
        drawn = draw_boxes(image, boxes.xyxy, boxes.labels, NAMES, np.array(scores, np.float32))
        assert tuple(drawn[49, 30].tolist()) == class_colour(winner)


@pytest.mark.parametrize(
    "xyxy", [(0, 0, 10, 10), (-50, -50, 500, 500), (55, 55, 60, 60), (0, 58, 60, 60), (5.4, 5.5, 5.5, 5.6)]
)
def test_boxes_at_and_over_the_border_are_drawn_within_the_image(xyxy: tuple[float, float, float, float]) -> None:
    image = np.zeros((60, 60, 3), np.uint8)
    drawn = draw_boxes(image, np.array([xyxy], np.float32), np.array([2]), NAMES, np.array([0.5], np.float32))
    assert drawn.shape == image.shape
    assert drawn.any()


def test_no_boxes_leave_the_image_as_it_is() -> None:
    image = np.random.default_rng(0).integers(0, 256, (30, 30, 3)).astype(np.uint8)
    assert (draw_boxes(image, np.zeros((0, 4), np.float32), np.zeros(0, np.int64), NAMES) == image).all()


@pytest.mark.parametrize(
    ("count", "shape"), [(16, (3 * 104, 4 * 124, 3)), (5, (2 * 104, 4 * 124, 3)), (1, (104, 124, 3))]
)
def test_a_contact_sheet_shows_images_spread_over_the_split(tmp_path: Path, count: int, shape: tuple[int, ...]) -> None:
    shards = scenes(tmp_path, images=9)
    sheet = contact_sheet(shards, count, columns=4, tile=(120, 100))
    assert sheet.shape == shape
    assert np.array_equal(decode_image(encode_png(sheet)), sheet)
    assert len(np.unique(sheet[:100, :120].reshape(-1, 3), axis=0)) > 100


def test_an_empty_split_cannot_be_shown() -> None:
    empty = Manifest(
        dataset="d", split="s", classes=("a",), images=0, boxes={}, ignored=0, rejected={}, examples={}, shards=()
    )
    with pytest.raises(DataError, match="holds no image"):
        contact_sheet(ShardSet(UPath("/nowhere"), empty))


def test_an_outline_is_white_with_a_black_rim_and_is_seen_around_a_box_in_its_place() -> None:
    image = np.full((100, 120, 3), 90, np.uint8)
    boxes = boxes_of((30, 40, 90, 90))
    outlined = outline(image, boxes.xyxy)
    both = draw_boxes(outlined, boxes.xyxy, boxes.labels, NAMES)
    grey, black, white = (90,) * 3, (0,) * 3, (255,) * 3
    assert colours_along(outlined[60, 15:45]) == [grey, black, white, black, grey]
    assert colours_along(both[60, 15:45]) == [grey, black, white, class_colour(0), white, black, grey]
    assert (image == 90).all()


def colours_along(row: np.ndarray) -> list[tuple[int, ...]]:
    """The colours of a row of pixels, one after the other, runs as one."""
    return [colour for colour, _ in groupby(tuple(pixel) for pixel in row.tolist())]
