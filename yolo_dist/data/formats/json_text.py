"""JSON annotation files: whole ones, and those too large for memory read one element at a time."""

import json
import re
from collections.abc import Iterable, Iterator
from itertools import chain
from typing import Any

from yolo_dist.errors import AnnotationError

LARGEST_TOKEN = 1 << 24
"""Characters; a string that is not closed within as many is taken for damage, so that no more is read for it."""

_decoder = json.JSONDecoder()
_space = re.compile(r"[ \t\r\n]*")


def load_json(text: str, place: str) -> Any:
    """What a JSON file holds.

    Raises:
        AnnotationError: it is not JSON; names line and byte.
    """
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise _damage(place, error.lineno, len(text[: error.pos].encode()), error.msg) from None
    except (RecursionError, ValueError) as error:
        raise AnnotationError(f"{place}: not an annotation file: {error}") from None


def array_elements(chunks: Iterable[str], place: str) -> Iterator[Any]:
    """Elements of a JSON array; memory holds a chunk and an element, however long the array is.

    Args:
        chunks: the file's text in pieces of any size.
        place: its name, for messages.

    Raises:
        AnnotationError: it is not a JSON array; names line and byte.
    """
    window = _Window(chunks, place)
    yield from window.elements()
    window.end()


def object_members(chunks: Iterable[str], place: str) -> Iterator[tuple[str, Any]]:
    """Names and values of a JSON object; those that are arrays come as iterators over their elements.

    Memory holds a chunk and an element. What is left of an iterator is skipped when the next member is asked for.

    Args:
        chunks: the file's text in pieces of any size.
        place: its name, for messages.

    Raises:
        AnnotationError: it is not a JSON object; names line and byte.
    """
    window = _Window(chunks, place)
    window.take("{")
    following = window.take("}") if window.next_character() == "}" else ","
    while following == ",":
        if window.next_character() != '"':
            raise window.damage(window.position, "Expecting property name enclosed in double quotes")
        name = window.value()
        window.take(":")
        if window.next_character() == "[":
            elements = window.elements()
            yield name, elements
            for _ in elements:
                pass
        else:
            yield name, window.value()
        following = window.take(",", "}")
    window.end()


def first_character(chunks: Iterable[str]) -> tuple[str, Iterator[str]]:
    """The first character of a text that is not white space, empty if there is none; and the whole text again."""
    remaining, start = iter(chunks), ""
    for chunk in remaining:
        start += chunk
        if start.strip():
            break
    return start.lstrip()[:1], chain([start], remaining)


class _Window:
    """The part of a text that is being read; what is before it is forgotten, what comes after it not yet known."""

    def __init__(self, chunks: Iterable[str], place: str) -> None:
        self.position = 0
        self._text = ""
        self._chunks = iter(chunks)
        self._place = place
        self._lines, self._bytes = 1, 0

    def next_character(self) -> str:
        """The next character that is not white space, without taking it; empty at the end."""
        while True:
            space = _space.match(self._text, self.position)
            assert space is not None
            self.position = space.end()
            if self.position < len(self._text):
                return self._text[self.position]
            if not self._grow():
                return ""

    def take(self, *wanted: str) -> str:
        """Take one of these characters."""
        found = self.next_character()
        if found not in wanted:
            raise self.damage(self.position, f"Expecting {' or '.join(map(repr, wanted))}")
        self.position += 1
        return found

    def elements(self) -> Iterator[Any]:
        """Take an array, element by element."""
        self.take("[")
        following = self.take("]") if self.next_character() == "]" else ","
        while following == ",":
            yield self.value()
            following = self.take(",", "]")

    def end(self) -> None:
        """Require that nothing comes any more."""
        if self.next_character():
            raise self.damage(self.position, "Extra data")

    def value(self) -> Any:
        """Take a value."""
        self.next_character()
        while True:
            try:
                value, end = _decoder.raw_decode(self._text, self.position)
            except json.JSONDecodeError as error:
                place = error.pos - self.position  # growing moves the window
                if len(self._text) - error.pos > LARGEST_TOKEN or not self._grow():
                    raise self.damage(self.position + place, error.msg) from None
                continue
            except (RecursionError, ValueError) as error:
                raise AnnotationError(f"{self._place}: not an annotation file: {error}") from None
            if self._is_closed(end) or not self._grow():
                self.position = end
                return value

    def _is_closed(self, end: int) -> bool:
        """Whether a value ends here for certain: a number may go on in the next chunk."""
        space = _space.match(self._text, end)
        assert space is not None
        following = self._text[space.end() : space.end() + 1]
        return following in (",", "]", "}", ":") or len(self._text) - end > LARGEST_TOKEN

    def damage(self, position: int, message: str) -> AnnotationError:
        """What is wrong at a position of the window."""
        before = self._text[:position]
        return _damage(self._place, self._lines + before.count("\n"), self._bytes + len(before.encode()), message)

    def _grow(self) -> bool:
        """Forget what was taken, add a chunk; False at the end of the text."""
        chunk = next(self._chunks, None)
        if chunk is None:
            return False
        taken = self._text[: self.position]
        self._lines += taken.count("\n")
        self._bytes += len(taken.encode())
        self._text, self.position = self._text[self.position :] + chunk, 0
        return True


def _damage(place: str, line: int, offset: int, message: str) -> AnnotationError:
    return AnnotationError(f"{place}:{line}: byte {offset}: {message}; the file is cut or damaged, fetch it again")
