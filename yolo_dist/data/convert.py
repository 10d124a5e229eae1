"""Original files to Arrow shards.

A split is indexed (which images, which boxes), the index is cut into shards by size, each shard is written by a pure
function of its part of the index, and the manifest goes last: the same files give the same bytes.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path

import numpy as np
from pydantic import Field
from upath import UPath

from yolo_dist.config import Config
from yolo_dist.data.annotations import Boxes, Reason, Rejection, clip_boxes
from yolo_dist.data.card import Card, SplitSource
from yolo_dist.data.formats import AnnotatedImage, reader
from yolo_dist.data.image import ImageHeader, check_image
from yolo_dist.data.manifest import MANIFEST, Manifest, ShardRecord
from yolo_dist.data.scenes import Scene
from yolo_dist.data.shards import Sample, write_arrow
from yolo_dist.errors import ConversionError, DataError, ImageError
from yolo_dist.storage import location, publish_folder, require_reachable, sha256

Progress = Callable[[int, int], None]
"""Called with (images done, images in all) after each shard."""

_GENERATED_BYTES = 12 << 10  # about what a scene of the default size takes


class ConvertConfig(Config):
    """How a dataset is converted."""

    shard_bytes: int = Field(default=64 << 20, gt=0, le=1 << 30)
    """Bytes of encoded images after which a shard is full."""
    max_bad: float = Field(default=0.05, ge=0, le=1)
    """Largest share of images, and of boxes, that may be left out before the conversion fails."""
    examples: int = Field(default=5, ge=0)
    """Rejections of each kind that the manifest lists."""
    overwrite: bool = False
    """Replace a finished conversion."""


@dataclass
class Tally:
    """What was kept and what was left out; tallies of shards add up."""

    images: int = 0
    boxes: Counter[int] = field(default_factory=Counter)
    ignored: int = 0
    bad_images: list[Rejection] = field(default_factory=list)
    bad_boxes: list[Rejection] = field(default_factory=list)

    def add(self, other: "Tally") -> None:
        """Count another shard too."""
        self.images += other.images
        self.boxes += other.boxes
        self.ignored += other.ignored
        self.bad_images += other.bad_images
        self.bad_boxes += other.bad_boxes

    def keep(self, boxes: Boxes) -> None:
        """Count an image that was kept."""
        self.images += 1
        self.boxes.update(boxes.labels[~boxes.ignore].tolist())
        self.ignored += int(boxes.ignore.sum())


def convert(
    card: Card,
    source: str | Path | UPath,
    destination: str | Path | UPath,
    split: str,
    config: ConvertConfig | None = None,
    progress: Progress | None = None,
) -> Manifest:
    """Convert one split; it appears at `destination`/`split` completely or not at all.

    Args:
        card: the dataset.
        source: root of the dataset as downloaded; not looked at for generated scenes.
        destination: folder or URL under which the split's folder goes.
        split: one of the card's.
        config: how.
        progress: told after each shard.

    Raises:
        ConfigError: the card has no such split or format.
        AnnotationError: the annotation file of the split cannot be read.
        ConversionError: more is bad than allowed, nothing is left, or a finished conversion is there already.
        DataError: a folder or list is missing, or an image id occurs twice.
    """
    config = config or ConvertConfig()
    target = location(str(destination)) / split
    require_reachable(target)
    if (target / MANIFEST).exists() and not config.overwrite:
        raise ConversionError(f"{target}: is converted already; replace it with --overwrite")
    index = index_split(card, location(str(source)), card.split(split))
    total, tally, records = len(index), Tally(), list[ShardRecord]()
    with publish_folder(target, last=MANIFEST) as folder:
        for part in plan_shards(index, config.shard_bytes):
            record, shard = write_shard(part, folder / f"shard-{len(records):05d}.arrow")
            tally.add(shard)
            records += [record] if record else []
            if progress:
                progress(tally.images + len(tally.bad_images), total)
        _check_quality(tally, config, f"dataset {card.name}, split {split}")
        manifest = _manifest(card, split, tally, records, config)
        (folder / MANIFEST).write_text(manifest.to_json(), encoding="utf-8")
    return manifest


def present_splits(card: Card, source: str | Path | UPath) -> list[str]:
    """Splits of a card whose files are at `source`, in the card's order; generated ones always are.

    Raises:
        DataError: none is there; names what is missing.
    """
    root = location(str(source))
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
    index = list(reader(card.format)(root, source.at(root), card))
    if not index:
        raise DataError(f"{root / source.images}: no images; the source must be the root of the dataset as downloaded")
    counts = Counter(image.image_id for image in index)
    repeated = [image_id for image_id, count in counts.items() if count > 1]
    if repeated:
        raise DataError(f"{root}: image id {repeated[0]!r} occurs {counts[repeated[0]]} times; ids must be unique")
    return index


def plan_shards(index: Sequence[AnnotatedImage], shard_bytes: int) -> list[list[AnnotatedImage]]:
    """The index cut into shards: one is full with the image that brings it to `shard_bytes`."""
    parts: list[list[AnnotatedImage]] = []
    room = 0
    for image in index:
        if room <= 0:
            parts.append([])
            room = shard_bytes
        parts[-1].append(image)
        room -= _encoded_bytes(image)
    return parts


def _encoded_bytes(image: AnnotatedImage) -> int:
    if isinstance(image.source, UPath | Path):
        return int(image.source.stat().st_size)
    return _GENERATED_BYTES if isinstance(image.source, Scene) else 0


def write_shard(images: Iterable[AnnotatedImage], path: Path) -> tuple[ShardRecord | None, Tally]:
    """Write the usable ones of some images as one shard.

    Returns:
        The shard's record, None if no image was usable (then nothing is written), and what was counted.
    """
    tally, samples = Tally(), []
    for image in images:
        sample, rejected = _sample(image)
        tally.bad_boxes += rejected
        if isinstance(sample, Rejection):
            tally.bad_images.append(sample)
            continue
        tally.keep(sample.boxes)
        samples.append(sample)
    if not samples:
        return None, tally
    write_arrow(path, samples)
    record = ShardRecord(file=path.name, rows=len(samples), bytes=path.stat().st_size, sha256=sha256(UPath(path)))
    return record, tally


def _sample(image: AnnotatedImage) -> tuple[Sample | Rejection, tuple[Rejection, ...]]:
    """An image as a row and the boxes that were left out, or why there is no row."""
    if image.problem or image.source is None:
        return image.problem or Rejection(Reason.IMAGE_MISSING, image.place), ()
    try:
        data = image.source.read_bytes()
        header = check_image(data, image.place)
    except FileNotFoundError:
        return Rejection(Reason.IMAGE_MISSING, image.place), ()
    except (ImageError, OSError) as error:
        return Rejection(Reason.IMAGE_UNREADABLE, image.place, str(error).removeprefix(f"{image.place}: ")), ()
    if image.size and image.size != (header.width, header.height):
        return Rejection(Reason.SIZE_DIFFERS, image.place, _describe_sizes(image.size, header)), ()
    boxes = _in_pixels(image.boxes, header) if image.relative else image.boxes
    boxes, outside = clip_boxes(boxes, header.width, header.height, image.place)
    return Sample(image.image_id, data, header.width, header.height, boxes), image.rejected + outside


def _describe_sizes(claimed: tuple[int, int], header: ImageHeader) -> str:
    sizes = f"annotated as {claimed[0]}×{claimed[1]}, stored as {header.width}×{header.height}"
    rotated = header.orientation > 1 and claimed == (header.height, header.width)
    return f"{sizes} with EXIF orientation {header.orientation}; save it upright" if rotated else sizes


def _in_pixels(boxes: Boxes, header: ImageHeader) -> Boxes:
    sides = np.array([header.width, header.height, header.width, header.height], np.float32)
    return Boxes(boxes.xyxy * sides, boxes.labels, boxes.ignore)


def _check_quality(tally: Tally, config: ConvertConfig, place: str) -> None:
    kept_boxes = tally.boxes.total() + tally.ignored
    for what, bad, kept in (("images", tally.bad_images, tally.images), ("boxes", tally.bad_boxes, kept_boxes)):
        total = len(bad) + kept
        if len(bad) > config.max_bad * total:
            examples = "; ".join(str(rejection) for rejection in bad[:3])
            raise ConversionError(
                f"{place}: {len(bad)} of {total} {what} are bad, more than {config.max_bad:.0%}; "
                f"mend them or allow more with --max-bad. First: {examples}"
            )
    if not tally.images:
        examples = "; ".join(str(rejection) for rejection in tally.bad_images[:3])
        raise ConversionError(f"{place}: no usable image is left of {len(tally.bad_images)}. First: {examples}")


def _manifest(card: Card, split: str, tally: Tally, records: list[ShardRecord], config: ConvertConfig) -> Manifest:
    by_reason: dict[str, list[str]] = defaultdict(list)
    for rejection in chain(tally.bad_images, tally.bad_boxes):
        by_reason[rejection.reason].append(str(rejection))
    return Manifest(
        dataset=card.name,
        split=split,
        classes=card.classes,
        images=tally.images,
        boxes={name: tally.boxes[label] for label, name in enumerate(card.classes)},
        ignored=tally.ignored,
        rejected={reason: len(found) for reason, found in sorted(by_reason.items())},
        examples={reason: tuple(found[: config.examples]) for reason, found in sorted(by_reason.items())},
        shards=tuple(records),
    )
