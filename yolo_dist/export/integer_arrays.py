"""Arrays of integers as files: the smallest type that holds them, little-endian, two's complement, and their hash."""

import hashlib
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError
from torch import Tensor

from yolo_dist.errors import DumpCorrupt
from yolo_dist.export.tiles import Tile, tile_order

TYPES = ("int8", "uint8", "int16", "uint16", "int32", "uint32", "int64")
"""Tried in this order."""

Length = Annotated[int, Field(ge=1)]
Shape = tuple[Length, ...]


class ArrayRecord(BaseModel):
    """What an index says about an array.

    Attributes:
        file: its name.
        type: one of `TYPES`.
        bits: that its numbers need: two's complement if the type is signed.
        shape: of the array.
        tile: TM and TN where the file is in the order of tiles, see `tile_order`; else it is in the array's own.
        sha256: of the file.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    file: str = Field(pattern=r"^[\w.-]+$")
    type: str = Field(pattern=f"^({'|'.join(TYPES)})$")
    bits: int
    shape: Shape
    tile: tuple[Length, Length] | None = None
    sha256: str


class ConstantRecord(BaseModel):
    """An array of which every number is the same, and which has no file."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    every: int
    shape: Shape


RECORD: TypeAdapter[ArrayRecord | ConstantRecord] = TypeAdapter(ArrayRecord | ConstantRecord)


def write_array(array: Tensor, path: Path, tile: Tile | None = None) -> ArrayRecord | ConstantRecord:
    """Write an int64 array, with a `tile` in the order of tiles; nothing if all its numbers are the same."""
    numbers = array.numpy()
    lowest, highest = int(numbers.min()), int(numbers.max())
    if lowest == highest:
        return ConstantRecord(every=lowest, shape=numbers.shape)
    type_ = next(name for name in TYPES if np.iinfo(name).min <= lowest and highest <= np.iinfo(name).max)
    flat = numbers.ravel() if tile is None else numbers.ravel()[tile_order(numbers.shape, tile)]
    content = flat.astype(np.dtype(type_).newbyteorder("<")).tobytes()
    path.write_bytes(content)
    bits = max((number if number >= 0 else ~number).bit_length() for number in (lowest, highest))
    return ArrayRecord(
        file=path.name,
        type=type_,
        bits=bits if type_.startswith("u") else bits + 1,
        shape=numbers.shape,
        tile=tile,
        sha256=hashlib.sha256(content).hexdigest(),
    )


def is_record(values: object) -> bool:
    """Whether a part of an index describes an array."""
    return isinstance(values, dict) and bool({"file", "every"} & values.keys())


def read_array(values: object, folder: Path) -> Tensor:
    """The int64 array that an index describes.

    Raises:
        DumpCorrupt: the file is missing, or not the one that was written; names it.
    """
    try:
        record = RECORD.validate_python(values)
    except ValidationError as error:
        problem = error.errors()[0]
        place = ".".join(map(str, problem["loc"]))
        raise DumpCorrupt(f"{folder}: an array's {place}: {problem['msg']}; export the network again") from None
    if isinstance(record, ConstantRecord):
        return torch.full(record.shape, record.every)
    try:
        content = (folder / record.file).read_bytes()
    except OSError as error:
        raise DumpCorrupt(
            f"{folder}: {record.file} cannot be read ({error.strerror}); copy the whole folder again"
        ) from None
    if hashlib.sha256(content).hexdigest() != record.sha256:
        raise DumpCorrupt(f"{folder}: {record.file} is damaged, its sha256 is another; copy the whole folder again")
    flat = np.frombuffer(content, np.dtype(record.type).newbyteorder("<")).astype(np.int64)
    if flat.size != np.prod(record.shape, dtype=np.int64):
        raise DumpCorrupt(f"{folder}: {record.file} holds {flat.size} numbers, not {record.shape}; export it again")
    if record.tile is not None:
        numbers = np.empty_like(flat)
        numbers[tile_order(record.shape, record.tile)] = flat
        flat = numbers
    return torch.from_numpy(flat.reshape(record.shape))
