"""MATLAB's files of version 5 to 7: numbers, cells and structs, as annotations are made of.

Written from the format's public description (MathWorks, "MAT-File Format"). SciPy's reader, compiled, was seen to crash
the process on damaged files; this one checks every size against the bytes that are there, and runs nothing.
"""

import struct
import zlib
from dataclasses import dataclass
from math import prod
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from yolo_dist.errors import AnnotationError

LARGEST_VARIABLE = 64 << 20
"""Bytes; a compressed variable that grows beyond is refused."""

_HEADER, _TAG, _SMALL = 128, 8, 4
_MATRIX, _COMPRESSED = 14, 15
_CELL, _STRUCT = 1, 2
_CLASS_OF_NUMBERS = range(6, 16)
_TYPES = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}
_DEEPEST = 16


@dataclass(frozen=True)
class Cells:
    """A cell array, column by column."""

    items: tuple["Value", ...]


@dataclass(frozen=True)
class Structs:
    """A struct array, column by column: the fields of each."""

    items: tuple[dict[str, "Value"], ...]


Value: TypeAlias = "NDArray[np.float64] | Cells | Structs | None"
"""Numbers come as float64 of the array's shape, real parts only; what is of another class as None."""


def read_variables(content: bytes, place: str) -> dict[str, Value]:
    """The variables of a file by name.

    Raises:
        AnnotationError: it is not a file of version 5 to 7, or it is cut or damaged; names the byte.
    """
    byte_order = {b"IM": "<", b"MI": ">"}.get(content[_HEADER - 2 : _HEADER])
    if byte_order is None or struct.unpack(f"{byte_order}H", content[_HEADER - 4 : _HEADER - 2])[0] != 0x0100:
        raise AnnotationError(f"{place}: not a MATLAB file of version 5 to 7; save it with -v7, or fetch it again")
    reader = _Reader(memoryview(content)[_HEADER:], byte_order)
    variables: dict[str, Value] = {}
    while reader.more():
        start = _HEADER + reader.position
        try:
            name, value = _variable(reader)
        except (ValueError, OverflowError, zlib.error) as error:
            raise AnnotationError(
                f"{place}: variable at byte {start}: {error}; the file is cut or damaged, fetch it again"
            ) from None
        variables[name] = value
    return variables


class _Reader:
    """Takes element after element from a part of the file."""

    def __init__(self, data: memoryview, byte_order: str) -> None:
        self.position = 0
        self.byte_order = byte_order
        self._data = data

    def more(self) -> bool:
        """Whether anything is left."""
        return self.position < len(self._data)

    def element(self) -> tuple[int, memoryview]:
        """Type and content of the next element."""
        tag = self._data[self.position : self.position + _TAG]
        if len(tag) < _TAG:
            raise ValueError("an element ends within its tag")
        first, size = struct.unpack(f"{self.byte_order}II", tag)
        kind, small = first & 0xFFFF, first >> 16
        start = self.position + (_SMALL if small else _TAG)
        content = self._data[start : start + (small or size)]
        if len(content) < (small or size) or small > _SMALL:
            raise ValueError(f"an element of {small or size} bytes does not fit")
        padding = 0 if small or kind == _COMPRESSED else -size % _TAG
        self.position = self.position + _TAG if small else start + size + padding
        return kind, content

    def numbers(self) -> NDArray[np.float64]:
        """The next element, which must be of numbers, float64 [n]."""
        kind, content = self.element()
        if kind not in _TYPES:
            raise ValueError(f"an element of type {kind} stands where numbers must be")
        return np.frombuffer(content, f"{self.byte_order}{_TYPES[kind]}").astype(np.float64)

    def text(self) -> str:
        """The next element as ASCII text."""
        return bytes(self.element()[1]).decode("ascii")

    def matrix(self, depth: int = 0) -> tuple[str, Value]:
        """The next element, which must be a variable or a part of one: its name and value."""
        kind, content = self.element()
        if kind != _MATRIX or depth > _DEEPEST:
            raise ValueError(f"an element of type {kind} stands where an array must be, {depth} arrays deep")
        return _Reader(content, self.byte_order)._parts(depth) if content else ("", None)

    def _parts(self, depth: int) -> tuple[str, Value]:
        flags, dimensions, name = self.numbers(), self._dimensions(), self.text()
        kind = int(flags[0]) & 0xFF if len(flags) else 0
        if kind == _CELL:
            return name, Cells(tuple(self.matrix(depth + 1)[1] for _ in range(self._count(dimensions))))
        if kind == _STRUCT:
            fields = self._fields()
            structs = ({field: self.matrix(depth + 1)[1] for field in fields} for _ in range(self._count(dimensions)))
            return name, Structs(tuple(structs))
        return name, self.numbers().reshape(dimensions, order="F") if kind in _CLASS_OF_NUMBERS else None

    def _dimensions(self) -> tuple[int, ...]:
        dimensions = tuple(int(size) for size in self.numbers())
        if min(dimensions, default=-1) < 0:
            raise ValueError(f"{dimensions} is not the shape of an array")
        return dimensions

    def _count(self, dimensions: tuple[int, ...]) -> int:
        """Number of parts of an array, each of which takes a tag at least."""
        count = prod(dimensions)
        if count * _TAG > len(self._data):
            raise ValueError(f"an array of {count} parts does not fit")
        return count

    def _fields(self) -> list[str]:
        (length,), names = self.numbers(), self.text()
        width = int(length)
        if width <= 0 or len(names) % width:
            raise ValueError(f"field names of {length:g} characters do not fill {len(names)}")
        return [names[start : start + width].split("\0")[0] for start in range(0, len(names), width)]


def _variable(reader: _Reader) -> tuple[str, Value]:
    before = reader.position
    kind, content = reader.element()
    if kind != _COMPRESSED:
        reader.position = before
        return reader.matrix()
    inflater = zlib.decompressobj()
    data = inflater.decompress(content, LARGEST_VARIABLE)
    if not inflater.eof:
        raise ValueError(f"a compressed variable is cut, or larger than {LARGEST_VARIABLE} bytes")
    return _Reader(memoryview(data), reader.byte_order).matrix()
