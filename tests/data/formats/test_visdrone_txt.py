"""VisDrone's text files, as the challenge's training and validation sets hold them."""

from pathlib import Path

import pytest

from yolo_dist.data.annotations import ANY_CLASS
from yolo_dist.data.formats.visdrone_txt import parse

CLASSES = 10


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param("", [], id="image without objects"),
        pytest.param("684,8,273,116,0,0,0,0", [(684, 8, 957, 124, ANY_CLASS, True)], id="ignored region"),
        pytest.param("5,6,7,8,1,11,0,0", [(5, 6, 12, 14, ANY_CLASS, True)], id="others"),
        pytest.param("708,471,74,33,1,4,0,1,", [(708, 471, 782, 504, 3, False)], id="trailing comma"),
        pytest.param(
            "1,2,3,4,1,1,0,0\r\n\r\n5,6,7,8,1,10,1,2\r\n",
            [(1, 2, 4, 6, 0, False), (5, 6, 12, 14, 9, False)],
            id="CRLF, blank line, first and last class",
        ),
        pytest.param("1,2,3,4,0,4,0,0", [(1, 2, 4, 6, 3, True)], id="score 0 is not evaluated"),
    ],
)
def test_boxes_are_read(text: str, expected: list[tuple[float, ...]]) -> None:
    boxes, rejected = parse(text, CLASSES)
    rows = zip(boxes.xyxy.tolist(), boxes.labels.tolist(), boxes.ignore.tolist(), strict=True)
    assert [(*xyxy, label, ignore) for xyxy, label, ignore in rows] == expected
    assert rejected == ()


@pytest.mark.parametrize(
    ("line", "reason", "detail"),
    [
        pytest.param("545,414,10,0,1,4,0,0", "zero area", "has no area", id="zero area"),
        pytest.param("1,2,3,4,1,12,0,0", "unknown class", "category 12", id="category beyond others"),
        pytest.param("1,2,3,4,1,-1,0,0", "unknown class", "category -1", id="negative category"),
        pytest.param("1,2,3,4,1,4,0", "bad number", "is not 8 numbers", id="a column is missing"),
        pytest.param("1,2,3,4,1,4,0,0,9", "bad number", "is not 8 numbers", id="a column too many"),
        pytest.param("a,2,3,4,1,4,0,0", "bad number", "is not 8 numbers", id="not a number"),
        pytest.param("nan,2,3,4,1,4,0,0", "bad number", "", id="not a finite number"),
    ],
)
def test_what_cannot_be_used_is_named_and_the_rest_is_kept(line: str, reason: str, detail: str) -> None:
    boxes, rejected = parse(f"10,10,5,5,1,1,0,0\n{line}\n20,20,5,5,1,2,0,0", CLASSES, "image.txt")
    assert boxes.labels.tolist() == [0, 1]
    assert [one.reason for one in rejected] == [reason]
    assert "image.txt:2" in str(rejected[0])
    assert detail in str(rejected[0])


def test_real_training_files_with_trailing_commas_and_zero_areas(shared_data: Path) -> None:
    files = sorted((shared_data / "visdrone" / "odd_annotations").glob("*.txt"))
    assert any(file.read_text().rstrip().endswith(",") for file in files)
    for file in files:
        lines = file.read_text().split()
        boxes, rejected = parse(file.read_text(), CLASSES, file.name)
        assert {one.reason for one in rejected} <= {"zero area"}
        assert len(boxes) + len(rejected) == len(lines)
