"""Generated scenes: repeatable, and boxes where the pixels are."""

import cv2
import numpy as np
import pytest
from pydantic import ValidationError

from yolo_dist.data.image import decode_image
from yolo_dist.data.scenes import CLASSES, Scene, SceneSettings, Shape, coverage


def test_a_scene_is_the_same_whenever_it_is_drawn_and_differs_from_others() -> None:
    settings = SceneSettings(seed=1)
    drawn = [Scene(index, settings).read_bytes() for index in range(6)]
    assert drawn == [Scene(index, settings).read_bytes() for index in range(6)]
    assert len({*drawn, Scene(0, SceneSettings(seed=2)).read_bytes()}) == 7


@pytest.mark.parametrize("bounds", [{"objects": (5, 2)}, {"diameter": (90, 20)}, {"distractors": (-1, 2)}])
def test_bounds_in_the_wrong_order_are_refused(bounds: dict[str, tuple[int, int]]) -> None:
    with pytest.raises(ValidationError, match="needs the smaller number first, and none below 0, not "):
        SceneSettings.model_validate({"seed": 1, **bounds})


def test_scenes_hold_all_classes_in_the_numbers_asked_for() -> None:
    boxes = [Scene(index, SceneSettings(seed=1)).boxes for index in range(100)]
    assert {len(one) for one in boxes} == {2, 3, 4, 5}
    shares = np.bincount(np.concatenate([one.labels for one in boxes])) / sum(map(len, boxes))
    assert len(shares) == len(CLASSES)
    assert (shares > 0.2).all()


@pytest.mark.parametrize("index", range(5))
def test_objects_stay_in_the_image_and_overlap_little(index: int) -> None:
    settings = SceneSettings(seed=4, width=96, height=128, objects=(5, 8), diameter=(16, 40))
    xyxy = Scene(index, settings).boxes.xyxy
    assert (xyxy[:, :2] >= 0).all()
    assert (xyxy[:, 2:] <= (96, 128)).all()
    assert (xyxy[:, 2:] - xyxy[:, :2] > 6).all()
    image = decode_image(Scene(index, settings).read_bytes())
    assert image.shape == (128, 96, 3)


@pytest.mark.parametrize("label", range(len(CLASSES)), ids=CLASSES)
@pytest.mark.parametrize("angle", [0.0, 0.4, 2.0])
def test_a_box_fits_its_drawn_object_tightly(label: int, angle: float) -> None:
    shape = Shape(label, (40.3, 35.8), 20.0, angle)
    mask = coverage(shape.outline, 80, 80)
    assert mask.sum() == pytest.approx(cv2.contourArea(shape.outline.astype(np.float32)), rel=0.03)
    columns, rows = mask.max(axis=0), mask.max(axis=1)
    seen = [np.argmax(columns > 0.1), np.argmax(rows > 0.1)]
    seen += [80 - np.argmax(columns[::-1] > 0.1), 80 - np.argmax(rows[::-1] > 0.1)]
    np.testing.assert_allclose(shape.xyxy, seen, atol=1)


def test_objects_can_be_told_from_their_background() -> None:
    scene = Scene(0, SceneSettings(seed=1, noise=0, distractors=(0, 0)))
    image = scene.draw().astype(float)
    for shape in scene.shapes[-1:]:  # the one in front
        x, y = (int(value) for value in shape.centre)
        inside = image[y - 3 : y + 3, x - 3 : x + 3].mean(axis=(0, 1))
        assert np.linalg.norm(inside - np.median(image, axis=(0, 1))) > 40
