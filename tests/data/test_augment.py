"""Augmentation: boxes stay on their objects, and all randomness is the generator's."""

import colorsys
from collections.abc import Iterable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_datasets import boxes_of

from yolo_dist.config import validate
from yolo_dist.data.annotations import Boxes
from yolo_dist.data.augment import (
    MIN_VISIBLE,
    AugmentConfig,
    affine,
    augment,
    cut,
    flip,
    jitter_colour,
    random_affine,
)
from yolo_dist.data.image import PADDING, Pixels
from yolo_dist.data.mosaic import mosaic_into
from yolo_dist.errors import ConfigError

OFF = AugmentConfig(mosaic=0, hue=0, saturation=0, value=0, flip=0)


def bright_object(width: int, height: int, box: tuple[int, int, int, int]) -> tuple[Pixels, Boxes]:
    """A white rectangle on black, and its box."""
    image = np.zeros((height, width, 3), np.uint8)
    image[box[1] : box[3], box[0] : box[2]] = 255
    return image, boxes_of(box)


def seen(image: Pixels) -> list[int]:
    """The box around what is bright."""
    ys, xs = np.nonzero(image[:, :, 0] > 160)
    return [int(xs.min()), int(ys.min()), int(xs.max()) + 1, int(ys.max()) + 1]


def test_flip_mirrors_image_and_boxes() -> None:
    image, boxes = flip(*bright_object(40, 20, (5, 3, 15, 9)))
    assert boxes.xyxy.tolist() == [seen(image)] == [[25, 3, 35, 9]]


def test_flipping_twice_is_nothing() -> None:
    image = np.random.default_rng(0).integers(0, 256, (9, 14, 3)).astype(np.uint8)
    boxes = boxes_of((1, 2, 3.5, 4), (0, 0, 14, 9))
    again, same = flip(*flip(image, boxes))
    assert (again == image).all()
    np.testing.assert_array_equal(same.xyxy, boxes.xyxy)


def test_everything_off_changes_nothing() -> None:
    image, boxes = bright_object(40, 20, (5, 3, 15, 9))
    same = image.copy()
    same_boxes = augment(same, boxes, OFF, np.random.default_rng(0))
    assert (same == image).all()
    assert same_boxes is boxes


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 10_000))
def test_an_affine_change_moves_the_box_with_its_object(seed: int) -> None:
    config = OFF.model_copy(update={"degrees": 20.0, "translate": 0.1, "scale": 0.3, "shear": 5.0})
    image, boxes = bright_object(120, 100, (45, 40, 75, 55))
    matrix = random_affine(120, 100, config, np.random.default_rng(seed))
    warped, moved = affine(image, boxes, matrix)
    np.testing.assert_allclose(moved.xyxy[0], seen(warped), atol=1.6)


def test_rotation_by_a_quarter_turn_is_exact() -> None:
    image, boxes = bright_object(60, 60, (10, 20, 30, 25))
    turn = np.array([[0.0, -1.0, 60.0], [1.0, 0.0, 0.0]])
    turned, moved = affine(image, boxes, turn)
    assert moved.xyxy.tolist() == [[35, 10, 40, 30]]
    assert seen(turned) == [35, 10, 40, 30]
    assert (turned == np.rot90(image, -1)).all()


@pytest.mark.parametrize(
    ("box", "expected"),
    [
        pytest.param((10, 10, 20, 20), [[10, 10, 20, 20]], id="inside"),
        pytest.param((-10, 10, 10, 20), [[0, 10, 10, 20]], id="half outside is cut"),
        pytest.param((-81, 10, 19, 20), [], id="nearly all outside is dropped"),
        pytest.param((-20, 10, -5, 20), [], id="outside is dropped"),
        pytest.param((-1000, -1000, 1000, 1000), [], id="a small part of a huge one is dropped"),
    ],
)
def test_cutting_keeps_what_can_be_recognised(box: tuple[float, ...], expected: list[list[float]]) -> None:
    left, top, right, bottom = box
    assert cut(boxes_of((left, top, right, bottom)), 50, 40).xyxy.tolist() == expected


def test_cutting_keeps_labels_and_ignore_with_their_boxes() -> None:
    xyxy = np.array([[-50, 0, 1, 9], [1, 1, 9, 9]], np.float32)
    kept = cut(Boxes(xyxy, np.array([3, 4], np.int32), np.array([False, True])), 50, 40)
    assert (kept.labels.tolist(), kept.ignore.tolist()) == ([4], [True])


@pytest.mark.parametrize("seed", [5, 6, 7, 8, 9])
@pytest.mark.parametrize("hue_change", [0.1, 1.0])
@pytest.mark.parametrize("rgb", [(200, 40, 40), (30, 180, 90), (90, 90, 200), (200, 40, 60)])
def test_colour_changes_are_products_in_hsv(rgb: tuple[int, int, int], hue_change: float, seed: int) -> None:
    image = np.full((4, 40, 3), rgb, np.uint8)
    config = AugmentConfig(hue=hue_change, saturation=0.4, value=0.3)
    changed = jitter_colour(image, config, np.random.default_rng(seed))
    factors = 1 + np.random.default_rng(seed).uniform(-1, 1, 3) * (hue_change, 0.4, 0.3)
    before = np.array(colorsys.rgb_to_hsv(*(value / 255 for value in rgb)))
    hue, saturation, value = before * factors
    expected = np.array(colorsys.hsv_to_rgb(hue % 1, min(saturation, 1), min(value, 1))) * 255
    np.testing.assert_allclose(changed, np.broadcast_to(expected, changed.shape), atol=8)


def test_colour_changes_leave_grey_images_grey() -> None:
    image = np.repeat(np.arange(0, 250, 10, dtype=np.uint8)[:, None, None], 3, axis=2)
    changed = jitter_colour(image, AugmentConfig(), np.random.default_rng(1))
    assert (changed == changed[:, :, :1]).all()


@pytest.mark.parametrize("hue", [0.0138, 1.0])
def test_the_change_of_colours_in_a_row_does_not_depend_on_its_place(hue: float) -> None:
    image = np.random.default_rng(0).integers(0, 256, (700, 300, 3)).astype(np.uint8)
    config = AugmentConfig(hue=hue)
    changed = jitter_colour(image, config, np.random.default_rng(2))
    rows = [jitter_colour(image[row : row + 1], config, np.random.default_rng(2)) for row in range(len(image))]
    assert (changed == np.concatenate(rows)).all()


@pytest.mark.parametrize("seed", range(8))
def test_augmenting_is_affine_then_colour_then_flip_in_place(seed: int) -> None:
    config = AugmentConfig(degrees=10, translate=0.1, flip=0.5)
    image = np.random.default_rng(seed).integers(0, 256, (90, 61, 3)).astype(np.uint8)
    generator, boxes = np.random.default_rng(seed), boxes_of((10, 20, 40, 60))
    expected, expected_boxes = affine(image, boxes, random_affine(61, 90, config, generator))
    expected = jitter_colour(expected, config, generator)
    if generator.random() < 0.5:
        expected, expected_boxes = flip(expected, expected_boxes)
    found = augment(image, boxes, config, np.random.default_rng(seed))
    assert (image == expected).all()
    np.testing.assert_array_equal(found.xyxy, expected_boxes.xyxy)


def mosaic(
    tiles: Iterable[tuple[Pixels, Boxes]], size: tuple[int, int], generator: np.random.Generator, before: int = 0
) -> tuple[Pixels, Boxes]:
    """A mosaic on a canvas that had one grey level before."""
    canvas = np.full((size[1], size[0], 3), before, np.uint8)
    return canvas, mosaic_into(iter(tiles), canvas, generator)


def test_a_mosaic_overwrites_all_of_its_canvas() -> None:
    tiles = [bright_object(30 * number, 40, (2, 2, 20, 20)) for number in (1, 2, 3, 4)]
    on_black, on_white = (mosaic(tiles, (96, 64), np.random.default_rng(3), level)[0] for level in (0, 255))
    assert (on_black == on_white).all()


def test_a_mosaic_holds_four_images_around_one_point() -> None:
    colours = [(250, 0, 0), (0, 250, 0), (0, 0, 250), (250, 250, 0)]
    tiles = [(np.full((60, 80, 3), colour, np.uint8), boxes_of((20, 15, 60, 45))) for colour in colours]
    image, boxes = mosaic(tiles, (96, 64), np.random.default_rng(0))
    x, y = (
        int(side * share) for side, share in zip((96, 64), np.random.default_rng(0).uniform(0.25, 0.75, 2), strict=True)
    )
    assert image.shape == (64, 96, 3)
    around = [image[y - 1, x - 1], image[y - 1, x], image[y, x - 1], image[y, x]]
    assert [tuple(colour.tolist()) for colour in around] == colours
    assert 1 <= len(boxes) <= 4


@pytest.mark.parametrize("shape", [(1, 1000), (1000, 1)])
def test_an_image_too_thin_for_a_mosaic_leaves_its_quarter_grey(shape: tuple[int, int]) -> None:
    thin = np.zeros((*shape, 3), np.uint8), boxes_of((0, 0, shape[1], shape[0]))
    image, boxes = mosaic([thin] * 4, (96, 64), np.random.default_rng(0))
    assert (image == PADDING).all()
    assert not len(boxes)


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 10_000))
def test_boxes_in_a_mosaic_lie_on_their_objects(seed: int) -> None:
    empty = (np.zeros((50, 50, 3), np.uint8), Boxes())
    tile = bright_object(150, 120, (50, 40, 110, 80))
    for place in range(4):
        tiles = [tile if number == place else empty for number in range(4)]
        image, boxes = mosaic(tiles, (96, 128), np.random.default_rng(seed))
        for xyxy in boxes.xyxy:
            np.testing.assert_allclose(xyxy, seen(image), atol=1.6)
        if not len(boxes):  # then hardly anything of the object is to be seen
            assert (image[:, :, 0] > 160).sum() <= MIN_VISIBLE * (60 * 40) * 0.64**2 + 100


def test_equal_generators_give_equal_images_and_others_do_not() -> None:
    image, boxes = bright_object(60, 40, (10, 10, 30, 30))
    config = AugmentConfig(degrees=10, translate=0.1)
    first, again, other = image.copy(), image.copy(), image.copy()
    for copy, seed in ((first, 1), (again, 1), (other, 2)):
        augment(copy, boxes, config, np.random.default_rng(seed))
    assert (first == again).all()
    assert (first != other).any()


@pytest.mark.parametrize(
    ("values", "problem"),
    [({"mosaic": 1.5}, "mosaic"), ({"scale": 1}, "scale"), ({"flips": 0.5}, "flips: unknown key")],
)
def test_wrong_settings_are_refused(values: dict[str, float], problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        validate(AugmentConfig, values, "recipe")
