"""BDD100K's labels in all their editions, and Scalabel's."""

import json
from pathlib import Path
from typing import Any

import pytest

from yolo_dist.data.card import find_card
from yolo_dist.data.formats.bdd_json import Frame, parse
from yolo_dist.errors import AnnotationError

CLASSES = find_card("bdd100k").class_numbers()
CAR, PERSON, BIKE, MOTOR = 0, 2, 3, 5


def box(category: str, *, extra: dict[str, Any] | None = None, **sides: float) -> dict[str, Any]:
    sides = sides or {"x1": 1, "y1": 2, "x2": 11, "y2": 22}
    return {"category": category, "box2d": sides, **(extra or {})}


def frames(content: Any) -> list[Frame]:
    return list(parse([json.dumps(content)], CLASSES, "labels.json"))


def rows(frame: Frame) -> list[tuple[Any, ...]]:
    boxes = frame.boxes
    columns = zip(boxes.xyxy.tolist(), boxes.labels.tolist(), boxes.ignore.tolist(), strict=True)
    return [(*xyxy, label, ignore) for xyxy, label, ignore in columns]


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        pytest.param([box("car")], [(1, 2, 11, 22, CAR, False)], id="a box"),
        pytest.param([box("pedestrian")], [(1, 2, 11, 22, PERSON, False)], id="newer name of person"),
        pytest.param([box("bicycle")], [(1, 2, 11, 22, BIKE, False)], id="newer name of bike"),
        pytest.param([box("motorcycle")], [(1, 2, 11, 22, MOTOR, False)], id="newer name of motor"),
        pytest.param(
            [box("car", extra={"attributes": {"crowd": True}})], [(1, 2, 11, 22, CAR, True)], id="crowd is ignored"
        ),
        pytest.param([box("other vehicle")], [(1, 2, 11, 22, CAR, True)], id="a look-alike is ignored"),
        pytest.param([{"category": "drivable area", "poly2d": [[1, 2]]}], [], id="a polygon is no box"),
        pytest.param([box("car", extra={"box3d": None})], [(1, 2, 11, 22, CAR, False)], id="null box3d beside a box"),
        pytest.param(
            [{"category": "lane", "box3d": None, "poly2d": [[1, 2]]}, box("car")],
            [(1, 2, 11, 22, CAR, False)],
            id="shapes are mixed",
        ),
    ],
)
def test_labels_become_boxes(labels: list[dict[str, Any]], expected: list[tuple[Any, ...]]) -> None:
    (frame,) = frames([{"name": "a.jpg", "labels": labels}])
    assert rows(frame) == expected
    assert frame.rejected == ()


@pytest.mark.parametrize(
    ("content", "names"),
    [
        pytest.param([{"name": "a.jpg", "labels": [box("car")]}], [("a",)], id="2018 and det_20: an array"),
        pytest.param(
            {"name": "a", "frames": [{"timestamp": 1, "objects": [box("car")]}]}, [("a",)], id="one file a frame"
        ),
        pytest.param({"frames": [{"name": "a.jpg", "labels": [box("car")]}], "config": None}, [("a",)], id="Scalabel"),
        pytest.param(
            [{"name": "v-1.jpg", "videoName": "v", "labels": [box("car")]}], [("v/v-1", "v-1")], id="frame of a video"
        ),
    ],
)
def test_every_edition_is_understood(content: Any, names: list[tuple[str, ...]]) -> None:
    found = frames(content)
    assert [frame.names for frame in found] == names
    assert [rows(frame) for frame in found] == [[(1, 2, 11, 22, CAR, False)]]


@pytest.mark.parametrize(
    "frame", [{"name": "a.jpg"}, {"name": "a.jpg", "labels": None}, {"name": "a.jpg", "labels": []}]
)
def test_a_frame_may_have_no_labels(frame: dict[str, Any]) -> None:
    assert [rows(one) for one in frames([frame])] == [[]]


@pytest.mark.parametrize(
    ("label", "reason"),
    [
        pytest.param(box("spaceship"), "unknown class", id="unknown class"),
        pytest.param({"category": "car"}, "bad number", id="no shape at all"),
        pytest.param({"category": "car", "box2d": {"x1": 1}}, "bad number", id="sides are missing"),
        pytest.param(box("car", x1=3, y1=3, x2=3, y2=9), "zero area", id="zero area"),
    ],
)
def test_what_cannot_be_used_is_named_and_the_rest_is_kept(label: dict[str, Any], reason: str) -> None:
    (frame,) = frames([{"name": "a.jpg", "labels": [box("car"), label, box("bus")]}])
    assert len(frame.boxes) == 2
    assert [one.reason for one in frame.rejected] == [reason]
    assert "labels.json: frames[0]: labels[1]" in str(frame.rejected[0])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        pytest.param('[{"name": "a.jpg", "labels": [', "labels.json", id="cut in the middle"),
        pytest.param('[{"labels": []}]', r"frames\[0\]: name must be", id="a frame without a name"),
        pytest.param('"text"', "must be a list of frames", id="no frames"),
        pytest.param('[{"name": "a", "labels": 3}]', "must be a list of objects", id="labels are no list"),
    ],
)
def test_a_file_that_cannot_be_read_says_where(text: str, message: str) -> None:
    with pytest.raises(AnnotationError, match=message):
        list(parse([text], CLASSES, "labels.json"))


def test_pieces_of_any_size_give_the_same_frames() -> None:
    text = json.dumps([{"name": f"{number}.jpg", "labels": [box("car")]} for number in range(5)])
    whole = [frame.names for frame in parse([text], CLASSES)]
    for size in (1, 7, 64):
        pieces = [text[start : start + size] for start in range(0, len(text), size)]
        assert [frame.names for frame in parse(pieces, CLASSES)] == whole


@pytest.mark.parametrize("file", ["labels/bdd100k_labels_images_train.json", "labels/det_20/det_train.json"])
def test_both_real_editions_hold_the_same_boxes(shared_data: Path, file: str) -> None:
    found = list(parse([(shared_data / "bdd100k" / file).read_text()], CLASSES, file))
    assert len(found) == 60
    assert sum(len(frame.boxes) for frame in found) == 713
    assert all(frame.rejected == () for frame in found)


def test_real_scalabel_ground_truth_has_crowds_to_ignore(shared_data: Path) -> None:
    file = shared_data / "bdd100k" / "scalabel" / "box_track_ground_truth.json"
    found = list(parse([file.read_text()], CLASSES, file.name))
    assert sum(int(frame.boxes.ignore.sum()) for frame in found) > 0
    assert all(one.reason != "bad number" for frame in found for one in frame.rejected)
