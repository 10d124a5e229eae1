"""What a split of a dataset holds before conversion, and how it is cut into shards."""

import hashlib
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from upath import UPath

from yolo_dist.data.card import Card, SplitSource
from yolo_dist.data.formats import AnnotatedImage, reader
from yolo_dist.data.scenes import Scene
from yolo_dist.errors import DataError
from yolo_dist.storage import location

_GENERATED_BYTES = 12 << 10  # about what a scene of the default size takes


@dataclass
class Part:
    """The images of one shard.

    Attributes:
        images: in order.
        fingerprint: of everything that the shard will hold, as far as it is known without reading images.
    """

    images: list[AnnotatedImage] = field(default_factory=list)
    fingerprint: str = ""


def dataset_root(card: Card, source: str | Path | UPath) -> UPath:
    """The folder in which a card's files lie: `source`, or the only one in it that has some, as many archives do."""
    root = location(source)
    if _has_files(card, root):
        return root
    try:
        inside = [folder for folder in root.iterdir() if _has_files(card, folder)]
    except (FileNotFoundError, NotADirectoryError):
        return root
    return inside[0] if len(inside) == 1 else root


def _has_files(card: Card, root: UPath) -> bool:
    return any(_missing(root, split) is None for split in card.splits.values())


def present_splits(card: Card, source: str | Path | UPath) -> list[str]:
    """Splits of a card whose files are at `source`, in the card's order; generated ones always are.

    Raises:
        DataError: none is there; names what is missing.
    """
    root = dataset_root(card, source)
    missing = {name: _missing(root, split) for name, split in card.splits.items()}
    there = [name for name, path in missing.items() if path is None]
    if not there:
        absent = next(iter(missing.values()))
        raise DataError(f"{absent}: no such file or folder; the source must be the root of the dataset as downloaded")
    return there


def _missing(root: UPath, split: SplitSource) -> UPath | None:
    if split.generate:
        return None
    there = split.at(root)
    paths = (root / name for name in (there.images, there.annotations, there.list) if name is not None)
    return next((path for path in paths if not path.exists()), None)


def index_split(card: Card, root: UPath, source: SplitSource) -> list[AnnotatedImage]:
    """All images of a split with their boxes, in the order of its list.

    Raises:
        DataError: an image id occurs twice, or there is no image at all.
    """
    index = list(reader(card)(root, source.at(root), card))
    if not index:
        raise DataError(f"{root / source.images}: no images; the source must be the root of the dataset as downloaded")
    counts = Counter(image.image_id for image in index)
    repeated = [image_id for image_id, count in counts.items() if count > 1]
    if repeated:
        raise DataError(f"{root}: image id {repeated[0]!r} occurs {counts[repeated[0]]} times; ids must be unique")
    return index


def plan_shards(index: Iterable[AnnotatedImage], shard_bytes: int) -> list[Part]:
    """The index cut into shards: one is full with the image that brings it to `shard_bytes`."""
    parts: list[Part] = []
    room, digest = 0, hashlib.sha256()
    for image in index:
        if room <= 0:
            parts.append(Part())
            room, digest = shard_bytes, hashlib.sha256()
        size, changed = _size_and_time(image)
        boxes = image.boxes
        facts = (image.image_id, image.place, image.relative, image.size, image.problem, image.rejected, size, changed)
        digest.update(repr(facts).encode())
        for array in (boxes.xyxy, boxes.labels, boxes.ignore):
            digest.update(array.tobytes())
        parts[-1].images.append(image)
        parts[-1].fingerprint = digest.hexdigest()
        room -= size
    return parts


def _size_and_time(image: AnnotatedImage) -> tuple[int, float]:
    """Bytes of an image's file and when it was last changed."""
    if isinstance(image.source, UPath | Path):
        try:
            facts = image.source.stat()
        except FileNotFoundError:
            return 0, 0
        return int(facts.st_size), float(facts.st_mtime)
    return (_GENERATED_BYTES if isinstance(image.source, Scene) else 0), 0
