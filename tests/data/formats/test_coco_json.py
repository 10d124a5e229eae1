"""COCO's instances files."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from yolo_dist.data.formats.coco_json import ListedImage
from yolo_dist.data.formats.coco_json import parse as parse_chunks
from yolo_dist.errors import AnnotationError

CLASSES = {"person": 0, "tv": 1, "tvmonitor": 1}
CATEGORIES = [{"id": 1, "name": "person"}, {"id": 72, "name": "tv"}, {"id": 90, "name": "toothbrush"}]
IMAGES = [{"id": 9, "file_name": "9.jpg", "width": 640, "height": 480}, {"id": 4, "file_name": "4.jpg"}]


def content(*annotations: dict[str, Any], **changes: Any) -> str:
    return json.dumps({"images": IMAGES, "annotations": annotations, "categories": CATEGORIES} | changes)


def parse(text: str, classes: dict[str, int], place: str = "annotations") -> list[ListedImage]:
    return list(parse_chunks([text[start : start + 50] for start in range(0, len(text), 50)], classes, place))


def annotation(**changes: Any) -> dict[str, Any]:
    return {"id": 1, "image_id": 9, "category_id": 1, "bbox": [10, 20, 30, 40], "iscrowd": 0} | changes


@pytest.mark.parametrize(
    ("item", "expected"),
    [
        pytest.param(annotation(), (10, 20, 40, 60, 0, False), id="left, top, width, height"),
        pytest.param(annotation(category_id=72), (10, 20, 40, 60, 1, False), id="sparse category id, by name"),
        pytest.param(annotation(iscrowd=1), (10, 20, 40, 60, 0, True), id="crowd is ignored"),
        pytest.param(
            annotation(iscrowd=1, segmentation={"counts": [1, 2], "size": [480, 640]}),
            (10, 20, 40, 60, 0, True),
            id="run-length segmentation does not matter",
        ),
        pytest.param(
            annotation(bbox=[-5.5, 0.25, 10, 1]), (-5.5, 0.25, 4.5, 1.25, 0, False), id="over the border: cut later"
        ),
    ],
)
def test_boxes_are_read(item: dict[str, Any], expected: tuple[float, ...]) -> None:
    image, other = parse(content(item), CLASSES)
    assert (*image.boxes.xyxy[0].tolist(), int(image.boxes.labels[0]), bool(image.boxes.ignore[0])) == expected
    assert len(other.boxes) == 0


def test_aliases_of_the_card_are_understood() -> None:
    renamed = [{"id": 72, "name": "tvmonitor"}]
    image, _ = parse(content(annotation(category_id=72), categories=renamed), CLASSES)
    assert image.boxes.labels.tolist() == [1]


def test_images_keep_the_order_of_the_file_with_or_without_annotations() -> None:
    images = parse(content(annotation(image_id=4), annotation(image_id=9), annotation(image_id=4)), CLASSES)
    assert [(image.image_id, image.file_name, image.size, len(image.boxes)) for image in images] == [
        ("9", "9.jpg", (640, 480), 1),
        ("4", "4.jpg", None, 2),
    ]


def test_an_annotation_of_an_image_that_is_not_listed_shows_up() -> None:
    images = parse(content(annotation(image_id=5)), CLASSES)
    assert [(image.image_id, image.file_name) for image in images] == [("9", "9.jpg"), ("4", "4.jpg"), ("5", "")]


@pytest.mark.parametrize(
    ("item", "reason"),
    [
        pytest.param(annotation(category_id=90), "unknown class", id="category the card does not have"),
        pytest.param(annotation(category_id=3), "unknown class", id="category the file does not list"),
        pytest.param(annotation(category_id=None), "unknown class", id="no category"),
        pytest.param(annotation(bbox=[1, 2, 3]), "bad number", id="three numbers"),
        pytest.param(annotation(bbox=None), "bad number", id="no box"),
        pytest.param(annotation(bbox=[1, 2, float("nan"), 4]), "bad number", id="NaN"),
        pytest.param(annotation(bbox=[1, 2, 10**400, 4]), "bad number", id="absurdly large"),
        pytest.param(annotation(bbox=[1, 2, 0, 4]), "zero area", id="zero area"),
    ],
)
def test_annotations_that_cannot_be_used_are_rejected_with_their_number(item: dict[str, Any], reason: str) -> None:
    image, _ = parse(content(annotation(), item), CLASSES, "a.json")
    assert len(image.boxes) == 1
    (rejection,) = image.rejected
    assert (rejection.reason, rejection.place) == (reason, "a.json: annotations[1]")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        pytest.param("[]", "a.json: must be an object with images", id="a list"),
        pytest.param("{}", "a.json: images must be a list", id="empty"),
        pytest.param(content(images={}), "a.json: images must be a list", id="images not a list"),
        pytest.param(content(annotations=[3]), "a.json: annotations must be a list of objects", id="not objects"),
        pytest.param(content(annotation(image_id=[])), r"a.json: annotations\[0\]: image_id must", id="odd image id"),
        pytest.param(content(images=[{"id": 3}]), r"a.json: images\[0\]: file_name must", id="no file name"),
        pytest.param('{"images": ' + "9" * 5000 + "}", "a.json: not an annotation file", id="endless number"),
        pytest.param('{"images": [' + "[" * 100_000, "a.json: not an annotation file", id="endless nesting"),
    ],
)
def test_files_of_another_kind_are_refused(text: str, message: str) -> None:
    with pytest.raises(AnnotationError, match=message):
        parse(text, CLASSES, "a.json")


def test_a_cut_file_is_refused_with_line_and_byte() -> None:
    text = '{"images": [],\n "annotations": [{"id": 1, "name": "é", '
    with pytest.raises(AnnotationError, match=rf"a\.json:2: byte {len(text.encode())}: .*cut or damaged"):
        parse(text, CLASSES, "a.json")


@settings(deadline=None)
@given(st.integers(0, 400))
def test_a_file_cut_anywhere_is_refused_never_misread(position: int) -> None:
    whole = content(annotation(), annotation(image_id=4))
    with pytest.raises(AnnotationError):
        parse(whole[: min(position, len(whole) - 1)], CLASSES)


def test_lists_may_come_in_any_order() -> None:
    lists = {"categories": CATEGORIES, "annotations": [annotation()], "info": {"year": 2017}, "images": IMAGES}
    image, _ = parse(json.dumps(lists), CLASSES)
    assert image.boxes.labels.tolist() == [0]


def test_an_image_that_is_listed_twice_comes_twice() -> None:
    assert [image.image_id for image in parse(content(images=[*IMAGES, IMAGES[0]]), CLASSES)] == ["9", "4", "9"]
