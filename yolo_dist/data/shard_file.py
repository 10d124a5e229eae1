"""One shard: an Arrow IPC file of one record batch, one row an image, written in one pass and read where it lies."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from yolo_dist.data.annotations import ANY_CLASS, Boxes

SCHEMA = pa.schema(
    [
        ("image_id", pa.string()),
        ("image", pa.binary()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("boxes", pa.list_(pa.list_(pa.float32(), 4))),
        ("labels", pa.list_(pa.int32())),
        ("ignore", pa.list_(pa.bool_())),
    ]
)
"""One row an image; `image` is the original encoded file, boxes are xyxy pixels."""


@dataclass(frozen=True)
class Sample:
    """One image of a shard set.

    Attributes:
        image_id: as the dataset names it.
        image: the original encoded bytes; a view into the mapped file.
        width, height: in pixels.
        boxes: its objects, cut at the border.
        shard: the file it is in, for messages.
    """

    image_id: str
    image: bytes | memoryview
    width: int
    height: int
    boxes: Boxes
    shard: str = ""


class SampleSequence(Sequence[Sample], ABC):
    """Numbered images, as a sequence has them; a subclass says how many there are and gives each."""

    @abstractmethod
    def sample(self, number: int) -> Sample:
        """Image `number`, from 0."""

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self.sample(number) for number in range(*index.indices(len(self)))]
        number = int(index) + len(self) if index < 0 else int(index)
        if not 0 <= number < len(self):
            raise IndexError(f"image {index} of {len(self)}")
        return self.sample(number)

    def __iter__(self) -> Iterator[Sample]:
        return (self.sample(number) for number in range(len(self)))


def write_shard_file(
    path: Path,
    image_ids: list[str],
    images: memoryview,
    image_ends: list[int],
    sizes: NDArray[np.int32],
    boxes: Boxes,
    box_counts: list[int],
) -> None:
    """Write one shard; equal content gives equal bytes. Nothing but the metadata is copied on the way to the file.

    Args:
        path: of the file.
        image_ids: of its n images.
        images: the encoded images one after another.
        image_ends: where each of them ends, in bytes.
        sizes: width and height, int32 [n, 2].
        boxes: of all images, one after another.
        box_counts: how many of them each image has.
    """
    names = [name.encode() for name in image_ids]
    rows, ends = len(names), _ends(box_counts)
    numbers = np.ascontiguousarray(sizes.T)
    corners = _array(pa.list_(pa.float32(), 4), len(boxes), None, children=[_numbers(pa.float32(), boxes.xyxy.ravel())])
    ignore = _array(pa.bool_(), len(boxes), np.packbits(boxes.ignore, bitorder="little"))
    columns = [
        _array(pa.string(), rows, _ends([len(name) for name in names]), b"".join(names)),
        _array(pa.binary(), rows, np.array([0, *image_ends], np.int32), images),
        _numbers(pa.int32(), numbers[0]),
        _numbers(pa.int32(), numbers[1]),
        _array(SCHEMA.field("boxes").type, rows, ends, children=[corners]),
        _array(SCHEMA.field("labels").type, rows, ends, children=[_numbers(pa.int32(), boxes.labels)]),
        _array(SCHEMA.field("ignore").type, rows, ends, children=[ignore]),
    ]
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, SCHEMA) as writer:
        writer.write_batch(pa.record_batch(columns, schema=SCHEMA))


class ShardFile:
    """The mapped columns of one file.

    Args:
        path: of the file.
        name: of the shard, for messages.
        rows: of its images, how many are wanted.
        classes: that its labels may name.

    Raises:
        ArrowException, ValueError, OSError, KeyError: the file is not that of a shard of as many images and of these
            classes.
    """

    def __init__(self, path: Path, name: str, rows: int, classes: int) -> None:
        self.name = name
        batch = pa.ipc.open_file(pa.memory_map(str(path))).get_batch(0)
        _require_sound(batch, rows, classes)
        self.image_ids, self.images = batch.column("image_id"), batch.column("image")
        self.widths, self.heights = (batch.column(name).to_numpy() for name in ("width", "height"))
        boxes = batch.column("boxes")
        self.bounds = boxes.offsets.to_numpy()
        self.xyxy = boxes.values.flatten().to_numpy().reshape(-1, 4)
        self.labels = batch.column("labels").values.to_numpy()
        self.ignore = batch.column("ignore").values.to_numpy(zero_copy_only=False).astype(np.bool_)

    def __getitem__(self, row: int) -> Sample:
        here = slice(self.bounds[row], self.bounds[row + 1])
        return Sample(
            image_id=self.image_ids[row].as_py(),
            image=memoryview(self.images[row].as_buffer()),
            width=int(self.widths[row]),
            height=int(self.heights[row]),
            boxes=Boxes(self.xyxy[here], self.labels[here], self.ignore[here]),
            shard=self.name,
        )


def _require_sound(batch: pa.RecordBatch, rows: int, classes: int) -> None:
    """Arrow reads wherever a file's offsets point, and right hashes may come from strangers too.

    Raises:
        ArrowInvalid: something is not as a shard has it.
    """
    if batch.schema != SCHEMA or batch.num_rows < rows:
        raise pa.ArrowInvalid(f"columns are {batch.schema.names}, rows {batch.num_rows}")
    batch.validate(full=True)
    boxes, labels, ignore = (batch.column(name) for name in ("boxes", "labels", "ignore"))
    parts = [*batch.columns, boxes.values, boxes.values.values, labels.values, ignore.values]
    if any(part.null_count or part.offset for part in parts):
        raise pa.ArrowInvalid("there are missing values")
    if not (boxes.offsets.equals(labels.offsets) and boxes.offsets.equals(ignore.offsets)):
        raise pa.ArrowInvalid("an image has other numbers of boxes and of labels")
    numbers = labels.values.to_numpy()
    if len(numbers) and not ANY_CLASS <= numbers.min() <= numbers.max() < classes:
        raise pa.ArrowInvalid("there are labels of no class")


def _ends(counts: list[int]) -> NDArray[np.int32]:
    return np.cumsum([0, *counts], dtype=np.int32)


def _numbers(kind: pa.DataType, values: NDArray[Any]) -> pa.Array:
    return _array(kind, len(values), values)


def _array(kind: pa.DataType, length: int, *buffers: Any, children: list[pa.Array] | None = None) -> pa.Array:
    """An Arrow array over memory that exists; its own constructor from Python lists would copy, and import pandas."""
    wrapped = [None if buffer is None else pa.py_buffer(buffer) for buffer in buffers if buffer is not None]
    return pa.Array.from_buffers(kind, length, [None, *wrapped], children=children)
