"""Original images to one shard: a pure function of the files, with memory for one shard."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from upath import UPath

from yolo_dist.data.annotations import Boxes, Reason, Rejection, clip_boxes, outside_rejection
from yolo_dist.data.conversion.jpeg_header import jpeg_size
from yolo_dist.data.conversion.tally import Tally
from yolo_dist.data.formats import AnnotatedImage
from yolo_dist.data.image import MAX_PIXELS, check_image, read_header
from yolo_dist.data.manifest import ShardRecord
from yolo_dist.data.shard_file import write_shard_file
from yolo_dist.errors import ImageError
from yolo_dist.storage import sha256

_EXIF, _WHERE_EXIF_IS = b"Exif\0\0", 1 << 16


@dataclass(frozen=True)
class WrittenShard:
    """What came of one shard's images; no record if none was usable."""

    record: ShardRecord | None
    tally: Tally


@dataclass
class _Rows:
    """The usable images of a shard in the making; boxes as the dataset has them."""

    ids: list[str] = field(default_factory=list)
    places: list[str] = field(default_factory=list)
    encoded: bytearray = field(default_factory=bytearray)
    ends: list[int] = field(default_factory=list)
    sizes: list[tuple[int, int]] = field(default_factory=list)
    boxes: list[Boxes] = field(default_factory=list)
    relative: list[bool] = field(default_factory=list)

    def add(self, image: AnnotatedImage, data: bytes, size: tuple[int, int]) -> None:
        self.ids.append(image.image_id)
        self.places.append(image.place)
        self.encoded += data
        self.ends.append(len(self.encoded))
        self.sizes.append(size)
        self.boxes.append(image.boxes)
        self.relative.append(image.relative)

    def cut_boxes(self) -> tuple[Boxes, list[int], list[Rejection]]:
        """All boxes in pixels, cut at the borders; how many each image has left; those outside."""
        owner = np.repeat(np.arange(len(self.ids)), [len(boxes) for boxes in self.boxes])
        limits = np.array(self.sizes, np.float32)[owner][:, [0, 1, 0, 1]]
        unit = np.where(np.array(self.relative, np.bool_)[owner, None], limits, np.float32(1))
        boxes = Boxes(
            np.concatenate([boxes.xyxy for boxes in self.boxes]) * unit,
            np.concatenate([boxes.labels for boxes in self.boxes]),
            np.concatenate([boxes.ignore for boxes in self.boxes]),
        )
        cut, inside = clip_boxes(boxes, limits)
        outside = [
            outside_rejection(boxes.xyxy[box], self.sizes[owner[box]], self.places[owner[box]])
            for box in np.flatnonzero(~inside)
        ]
        counts = np.bincount(owner[inside], minlength=len(self.ids))
        return cut.select(inside), counts.tolist(), outside


def write_shard(images: Iterable[AnnotatedImage], path: Path, name: str) -> WrittenShard:
    """Write the usable ones of some images as one shard.

    Args:
        images: in order.
        path: the file to write; nothing is written if no image is usable.
        name: of the shard in its manifest.
    """
    tally, rows = Tally(), _Rows()
    for image in images:
        try:
            data, size = _read(image)
        except _Unusable as reason:
            tally.bad_images.append(reason.rejection)
            continue
        tally.bad_boxes += image.rejected
        if turn := _undecided_turn(image, data, size):
            tally.turned.append(Rejection(Reason.STORED_TURNED, image.place, turn))
        rows.add(image, data, size)
    if not rows.ids:
        return WrittenShard(None, tally)
    boxes, counts, outside = rows.cut_boxes()
    tally.bad_boxes += outside
    tally.keep(len(rows.ids), boxes)
    write_shard_file(path, rows.ids, memoryview(rows.encoded), rows.ends, np.array(rows.sizes, np.int32), boxes, counts)
    record = ShardRecord(file=name, rows=len(rows.ids), bytes=path.stat().st_size, sha256=sha256(UPath(path)))
    return WrittenShard(record, tally)


class _Unusable(Exception):
    def __init__(self, rejection: Rejection) -> None:
        super().__init__(str(rejection))
        self.rejection = rejection


def _read(image: AnnotatedImage) -> tuple[bytes, tuple[int, int]]:
    """An image's bytes and (width, height) in pixels."""
    if image.problem or image.source is None:
        raise _Unusable(image.problem or Rejection(Reason.IMAGE_MISSING, image.place))
    try:
        data = image.source.read_bytes()
        size = _size(data, image.place)
    except FileNotFoundError:
        raise _Unusable(Rejection(Reason.IMAGE_MISSING, image.place)) from None
    except (ImageError, OSError) as error:
        detail = str(error).removeprefix(f"{image.place}: ")
        raise _Unusable(Rejection(Reason.IMAGE_UNREADABLE, image.place, detail)) from None
    if image.size and image.size != size:
        raise _Unusable(Rejection(Reason.SIZE_DIFFERS, image.place, _describe_sizes(image.size, data)))
    return data, size


def _size(data: bytes, place: str) -> tuple[int, int]:
    size = jpeg_size(data)
    if size is None or size[0] * size[1] > MAX_PIXELS:
        header = check_image(data, place)
        size = (header.width, header.height)
    return size


def _undecided_turn(image: AnnotatedImage, data: bytes, size: tuple[int, int]) -> str | None:
    """The turn that EXIF asks for, where nothing tells whether the boxes count before or after it."""
    if data.find(_EXIF, 0, _WHERE_EXIF_IS) < 0:
        return None
    orientation = read_header(data).orientation
    quarter = orientation >= 5
    decided = orientation == 1 or (quarter and image.size is not None and size[0] != size[1])
    return (
        None if decided else f"EXIF orientation {orientation} was not applied; where its boxes are off, save it upright"
    )


def _describe_sizes(claimed: tuple[int, int], data: bytes) -> str:
    header = read_header(data)
    sizes = f"annotated as {claimed[0]}×{claimed[1]}, stored as {header.width}×{header.height}"
    rotated = header.orientation > 1 and claimed == (header.height, header.width)
    return f"{sizes} with EXIF orientation {header.orientation}; save it upright" if rotated else sizes
