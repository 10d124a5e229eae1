"""VOC XML, as tools and datasets write it."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from yolo_dist.data.formats.voc_xml import parse
from yolo_dist.errors import AnnotationError

CLASSES = {"car": 0, "Expressway-toll-station": 1, "bike": 2}


def annotation(*objects: str, size: str = "<size><width>640</width><height>480</height></size>") -> str:
    return f"<annotation>{size}{''.join(objects)}</annotation>"


def item(name: str, *sides: object, extra: str = "") -> str:
    box = "".join(f"<{key}>{side}</{key}>" for key, side in zip(("xmin", "ymin", "xmax", "ymax"), sides, strict=True))
    return f"<object><name>{name}</name>{extra}<bndbox>{box}</bndbox></object>"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param(annotation(), [], id="image without objects"),
        pytest.param(annotation(item("car", 1, 1, 640, 480)), [(0, 0, 640, 480, 0, False)], id="whole image"),
        pytest.param(annotation(item("car", 5, 6, 7, 9)), [(4, 5, 7, 9, 0, False)], id="counted from 1, ends inside"),
        pytest.param(annotation(item("car", 1.5, 2.5, 7.25, 9)), [(0.5, 1.5, 7.25, 9, 0, False)], id="fractions"),
        pytest.param(
            annotation(item("bike", 2, 2, 9, 9, extra="<difficult>1</difficult>")),
            [(1, 1, 9, 9, 2, True)],
            id="difficult is ignored",
        ),
        pytest.param(
            annotation(item("Expressway-toll-station", 2, 2, 9, 9)), [(1, 1, 9, 9, 1, False)], id="case and hyphens"
        ),
        pytest.param(
            annotation(item(" car\r\n", " 2 ", 2, 9, 9)).replace("><", ">\r\n\t<"),
            [(1, 1, 9, 9, 0, False)],
            id="CRLF and spaces",
        ),
        pytest.param(
            annotation(item("car", 0, 0, 700, 9)), [(-1, -1, 700, 9, 0, False)], id="over the border: cut later"
        ),
    ],
)
def test_boxes_are_read(text: str, expected: list[tuple[float, ...]]) -> None:
    result = parse(text, CLASSES)
    rows = zip(result.boxes.xyxy.tolist(), result.boxes.labels.tolist(), result.boxes.ignore.tolist(), strict=True)
    assert [(*xyxy, label, ignore) for xyxy, label, ignore in rows] == expected
    assert result.rejected == ()


@pytest.mark.parametrize(
    ("text", "reason", "detail"),
    [
        pytest.param(
            item("truck", 1, 1, 5, 5), "unknown class", "class 'truck' is not in the card", id="unknown class"
        ),
        pytest.param(item("Car", 1, 1, 5, 5), "unknown class", "class 'Car'", id="case counts"),
        pytest.param(item("car", 5, 5, 5, 5), "zero area", "5,5,5,5", id="a click, as in bccd and dior"),
        pytest.param(item("car", 9, 5, 5, 8), "zero area", "9,5,5,8", id="sides swapped"),
        pytest.param(item("car", "x", 5, 5, 8), "bad number", "x,5,5,8", id="not a number"),
        pytest.param(item("car", "nan", 5, 5, 8), "bad number", "not finite", id="NaN"),
        pytest.param(item("car", 5, 5, "inf", 8), "bad number", "not finite", id="infinity"),
        pytest.param(item("car", 5, 5, "1e300", 8), "bad number", "not finite", id="absurdly large"),
        pytest.param("<object><name>car</name></object>", "bad number", ",,,", id="no box"),
        pytest.param("<object/>", "unknown class", "''", id="empty object"),
    ],
)
def test_boxes_that_cannot_be_used_are_rejected_with_their_place(text: str, reason: str, detail: str) -> None:
    result = parse(annotation(item("car", 1, 1, 9, 9), text), CLASSES, "Annotations/7.xml")
    assert len(result.boxes) == 1
    (rejection,) = result.rejected
    assert (rejection.reason, rejection.place) == (reason, "Annotations/7.xml: object 2")
    assert detail in rejection.detail


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ("<size><width>640</width><height>480</height></size>", (640, 480)),
        ("<size><width>0</width><height>0</height></size>", None),
        ("", None),
    ],
)
def test_the_claimed_size_is_read_where_it_is_given(size: str, expected: tuple[int, int] | None) -> None:
    assert parse(annotation(size=size), CLASSES).size == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        pytest.param("<annotation>\n<object>\n<na", r"a\.xml:3: column 1: not well-formed", id="cut"),
        pytest.param("", r"a\.xml:1: column 1: not well-formed", id="empty file"),
        pytest.param(
            '<!DOCTYPE a [<!ENTITY b "bb">]><a>&b;</a>', r"a\.xml: declares XML entities", id="entities could explode"
        ),
    ],
)
def test_files_that_are_not_xml_are_refused_with_the_line(text: str, message: str) -> None:
    with pytest.raises(AnnotationError, match=message):
        parse(text, CLASSES, "a.xml")


@settings(deadline=None)
@given(st.integers(0, 300))
def test_a_file_cut_anywhere_is_refused_never_misread(position: int) -> None:
    whole = annotation(item("car", 1, 1, 9, 9), item("bike", 3, 3, 20, 20))
    with pytest.raises(AnnotationError):
        parse(whole[: min(position, len(whole) - 1)], CLASSES)
