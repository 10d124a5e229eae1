"""Original files to Arrow shards.

A split is indexed (which images, which boxes), the index is cut into shards by size, each shard is written by a pure
function of its part of the index, here or on a Ray cluster, and the manifest goes last: the same files give the same
bytes, and an interrupted conversion goes on where it stopped.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from itertools import chain
from pathlib import Path

from pydantic import Field
from upath import UPath

from yolo_dist.config import Config
from yolo_dist.data.annotations import Reason
from yolo_dist.data.card import Card
from yolo_dist.data.conversion.index import Part, dataset_root, index_split, plan_shards
from yolo_dist.data.conversion.shard_writer import WrittenShard
from yolo_dist.data.conversion.staging import Staging
from yolo_dist.data.conversion.tally import Tally
from yolo_dist.data.manifest import MANIFEST, Manifest, ShardRecord, read_manifest
from yolo_dist.errors import ConversionError
from yolo_dist.object_store import is_remote, reaching
from yolo_dist.storage import location, require_folder

Progress = Callable[[int, int], None]
"""Called with (images done, images in all) after each shard."""


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
    workers: int = Field(default=0, ge=0)
    """Tasks on a Ray cluster that write shards at a time; 0 writes them in this process."""


def convert(
    card: Card,
    source: str | Path | UPath,
    destination: str | Path | UPath,
    split: str,
    config: ConvertConfig | None = None,
    progress: Progress | None = None,
) -> Manifest:
    """Convert one split; it appears at `destination`/`split` completely or not at all.

    Interrupted at any point, the same call goes on where it stopped. The result is the same for any number of workers.

    Args:
        card: the dataset.
        source: root of the dataset as downloaded, or a folder with it inside; not looked at for generated scenes.
        destination: folder or URL under which the split's folder goes.
        split: one of the card's.
        config: how.
        progress: told after each shard.

    Raises:
        ConfigError: the card has no such split or format, or the destination is a file.
        AnnotationError: the annotation file of the split cannot be read.
        ConversionError: more is bad than allowed, nothing is left, a finished conversion is there already, or another
            process is converting it.
        DataError: a folder or list is missing, or an image id occurs twice.
        StorageError: the destination cannot be reached.
    """
    config = config or ConvertConfig()
    target = location(destination) / split
    require_folder(location(destination))
    staging = Staging(target)
    _require_unfinished(staging, config)
    parts = plan_shards(index_split(card, dataset_root(card, source), card.split(split)), config.shard_bytes)
    with staging.held():
        _require_unfinished(staging, config)  # by another process, while this one read the annotations
        staging.open()
        try:
            written = _write(staging, parts, config.workers, progress)
            tally = Tally()
            for shard in written:
                tally.add(shard.tally)
            tally.check(config.max_bad, f"dataset {card.name}, split {split}")
        except ConversionError:
            staging.discard()
            raise
        manifest = _manifest(card, split, tally, [shard.record for shard in written if shard.record], config.examples)
        staging.finish(manifest)
    return manifest


def _require_unfinished(staging: Staging, config: ConvertConfig) -> None:
    """Refuse to convert again what is converted, if that was not asked for.

    Raises:
        ConversionError: it is.
    """
    with reaching(staging.target):
        finished = (staging.target / MANIFEST).exists()
    if finished and not config.overwrite:
        if is_remote(staging.target):
            staging.tidy(read_manifest(staging.target))
        raise ConversionError(f"{staging.target}: is converted already; replace it with --overwrite")


def _write(staging: Staging, parts: Sequence[Part], workers: int, progress: Progress | None) -> list[WrittenShard]:
    """What came of each part, in their order."""
    total, done = sum(len(part.images) for part in parts), 0
    written: dict[int, WrittenShard] = {}
    for number, shard in _shards(staging, parts, workers):
        written[number] = shard
        done += len(parts[number].images)
        if progress:
            progress(done, total)
    return [written[number] for number in range(len(parts))]


def _shards(staging: Staging, parts: Sequence[Part], workers: int) -> Iterator[tuple[int, WrittenShard]]:
    if workers:
        from yolo_dist.data.conversion.convert_on_ray import shards_on_ray  # Ray takes seconds to import

        return shards_on_ray(staging, parts, workers)
    return ((number, staging.shard(number, part)) for number, part in enumerate(parts))


def _manifest(card: Card, split: str, tally: Tally, records: Sequence[ShardRecord], examples: int) -> Manifest:
    by_reason: dict[str, list[str]] = defaultdict(list)
    for rejection in chain(tally.bad_images, tally.bad_boxes, tally.turned):
        by_reason[rejection.reason].append(str(rejection))
    return Manifest(
        dataset=card.name,
        split=split,
        classes=card.classes,
        images=tally.images,
        boxes={name: tally.boxes[label] for label, name in enumerate(card.classes)},
        ignored=tally.ignored,
        rejected={reason: len(found) for reason, found in sorted(by_reason.items()) if reason != Reason.STORED_TURNED},
        turned=len(tally.turned),
        examples={reason: tuple(found[:examples]) for reason, found in sorted(by_reason.items())},
        shards=tuple(records),
    )
