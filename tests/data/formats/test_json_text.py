"""JSON arrays read piece by piece; the standard library, which reads them whole, is the witness."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from yolo_dist.data.formats.json_text import LARGEST_TOKEN, array_elements, object_members
from yolo_dist.errors import AnnotationError

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)


def pieces(text: str, size: int) -> list[str]:
    return [text[start : start + size] for start in range(0, len(text), size)]


@settings(deadline=None)
@given(st.lists(VALUES, max_size=5), st.integers(1, 30), st.sampled_from([None, 1]), st.booleans())
def test_any_array_in_pieces_of_any_size_reads_as_the_standard_library_reads_it(
    values: list[Any], size: int, indent: int | None, ascii_only: bool
) -> None:
    text = f" {json.dumps(values, indent=indent, ensure_ascii=ascii_only)}\r\n"
    assert list(array_elements(pieces(text, size), "a.json")) == values


@settings(deadline=None)
@given(st.text(alphabet='[]{}",: 1a\n', max_size=20), st.integers(1, 5))
def test_what_the_standard_library_refuses_is_refused(text: str, size: int) -> None:
    try:
        whole = json.loads(text)
    except ValueError:
        whole = None
    if isinstance(whole, list):
        assert list(array_elements(pieces(text, size), "a.json")) == whole
    else:
        with pytest.raises(AnnotationError):
            list(array_elements(pieces(text, size), "a.json"))


@pytest.mark.parametrize("size", [1, 8, 1000])
@pytest.mark.parametrize(
    ("text", "place"),
    [
        pytest.param('[1,\n "é", tru', "a.json:2: byte 11: Expecting value", id="cut in a word"),
        pytest.param('[1,\n "é", "no end', "a.json:2: byte 11: Unterminated string", id="cut in a string"),
        pytest.param('["é",\n\n 2', "a.json:3: byte 10: Expecting ',' or ']'", id="cut after an element"),
        pytest.param("[1] 2", "a.json:1: byte 4: Extra data", id="more after the end"),
        pytest.param("", "a.json:1: byte 0: Expecting '['", id="empty"),
    ],
)
def test_damage_is_named_with_line_and_byte(text: str, place: str, size: int) -> None:
    with pytest.raises(AnnotationError) as caught:
        list(array_elements(pieces(text, size), "a.json"))
    assert str(caught.value).startswith(place)
    assert str(caught.value).endswith("the file is cut or damaged, fetch it again")


def test_endless_nesting_is_refused() -> None:
    with pytest.raises(AnnotationError, match=r"a\.json: not an annotation file"):
        list(array_elements(["[" * 100_000], "a.json"))


def test_elements_come_before_the_rest_is_read() -> None:
    def chunks() -> Iterator[str]:
        yield '[{"a": 1}, {"a"'
        raise AssertionError("read too far")

    assert next(array_elements(chunks(), "a.json")) == {"a": 1}


def test_a_string_that_is_never_closed_does_not_draw_the_whole_file_into_memory() -> None:
    taken = 0

    def chunks() -> Iterator[str]:
        nonlocal taken
        yield '["'
        for _ in range(100):
            taken += 1
            yield "x" * (1 << 20)

    with pytest.raises(AnnotationError, match="Unterminated string"):
        list(array_elements(chunks(), "a.json"))
    assert taken <= (LARGEST_TOKEN >> 20) + 1


@settings(deadline=None)
@given(st.dictionaries(st.text(max_size=4), VALUES, max_size=4), st.integers(1, 30), st.sampled_from([None, 1]))
def test_any_object_in_pieces_reads_as_the_standard_library_reads_it(
    values: dict[str, Any], size: int, indent: int | None
) -> None:
    text = f" {json.dumps(values, indent=indent)}\r\n"
    read = {
        name: list(value) if isinstance(value, Iterator) else value
        for name, value in object_members(pieces(text, size), "a.json")
    }
    assert read == values


def test_members_that_are_not_wanted_are_skipped() -> None:
    text = '{"a": [1, [2], {"b": 3}], "c": 4, "d": []}'
    assert [name for name, _ in object_members(pieces(text, 5), "a.json")] == ["a", "c", "d"]


@settings(deadline=None)
@given(st.text(alphabet='[]{}",: 1a', max_size=20), st.integers(1, 5))
def test_objects_that_the_standard_library_refuses_are_refused(text: str, size: int) -> None:
    try:
        whole = json.loads(text)
    except ValueError:
        whole = None
    if not isinstance(whole, dict):
        with pytest.raises(AnnotationError):
            list(object_members(pieces(text, size), "a.json"))
