"""Darknet's text files."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from yolo_dist.data.formats.yolo_txt import parse


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param("", [], id="image without objects"),
        pytest.param("\n \n", [], id="blank lines"),
        pytest.param("1 0.5 0.5 1 1", [(0, 0, 1, 1, 1)], id="whole image"),
        pytest.param("0 0.25 0.5 0.5 0.25\r\n", [(0, 0.375, 0.5, 0.625, 0)], id="CRLF"),
        pytest.param("0\t0.25  0.5 5e-1 .25", [(0, 0.375, 0.5, 0.625, 0)], id="tabs and exponents"),
        pytest.param("0 0.9 0.5 0.4 0.5", [(0.7, 0.25, 1.1, 0.75, 0)], id="over the border: cut later"),
    ],
)
def test_boxes_are_read(text: str, expected: list[tuple[float, ...]]) -> None:
    boxes, rejected = parse(text, classes=2)
    assert rejected == ()
    assert boxes.labels.tolist() == [row[4] for row in expected]
    np.testing.assert_allclose(boxes.xyxy, np.array([row[:4] for row in expected]).reshape(-1, 4), rtol=1e-6)
    assert not boxes.ignore.any()


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("2 0.5 0.5 0.1 0.1", "unknown class"),
        ("-1 0.5 0.5 0.1 0.1", "bad number"),
        ("1.0 0.5 0.5 0.1 0.1", "bad number"),
        ("car 0.5 0.5 0.1 0.1", "bad number"),
        ("0 0.5 0.5 0.1", "bad number"),
        ("0 0.5 0.5 0.1 0.1 0.9", "bad number"),
        ("0 0.5 0.5 0.1 nan", "bad number"),
        ("0 0.5 0.5 0 0.1", "zero area"),
        ("0 0.5 0.5 -0.1 0.1", "zero area"),
    ],
)
def test_lines_that_cannot_be_used_are_rejected_with_their_number(line: str, reason: str) -> None:
    boxes, (rejection,) = parse(f"0 0.5 0.5 0.1 0.1\n{line}\n", classes=2, place="labels/7.txt")
    assert len(boxes) == 1
    assert (rejection.reason, rejection.place) == (reason, "labels/7.txt:2")


@settings(deadline=None)
@given(st.text(max_size=80))
def test_any_text_is_read_or_rejected_line_by_line(text: str) -> None:
    boxes, rejected = parse(text, classes=3)
    assert len(boxes) + len(rejected) == sum(bool(line.strip()) for line in text.splitlines())
