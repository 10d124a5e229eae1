"""How many shards a node of a cluster downloads in each epoch: the real order, the real choice of mosaic partners.

The cache keeps books only, by the rules of `ShardCache`; shards have no bytes. What is brought ahead is there before it
is needed.
"""

from collections import Counter, OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from upath import UPath

from yolo_dist.data.augment import AugmentConfig
from yolo_dist.data.loader import Loader
from yolo_dist.data.manifest import Manifest, ShardRecord
from yolo_dist.data.order import sample_seed
from yolo_dist.data.shards import ShardSet
from yolo_dist.errors import StorageError

SHARD_BYTES = 64 << 20
IMAGES_A_WORKER = 16
"""Of each global batch; one worker a node."""
AUGMENT = AugmentConfig()


class Cache(Protocol):
    """What a shard set asks of this machine's cache."""

    limit: int

    def has(self, record: ShardRecord) -> bool: ...  # noqa: D102
    def get(self, remote: UPath, record: ShardRecord, release: Any = ...) -> Any: ...  # noqa: D102


class Held:
    """A shard that stays for as long as this object is there."""

    def __init__(self, readers: Counter[str], shard: str) -> None:
        self._readers, self._shard = readers, shard
        readers[shard] += 1

    def __del__(self) -> None:
        self._readers[self._shard] -= 1


@dataclass
class CountingCache:
    """The books of a `ShardCache`.

    Attributes:
        limit: bytes that all shards may take.
        downloads: how many there were.
    """

    limit: int
    downloads: int = 0
    _kept: OrderedDict[str, int] = field(default_factory=OrderedDict)
    _readers: Counter[str] = field(default_factory=Counter)

    def has(self, record: ShardRecord) -> bool:
        """Whether a shard is there."""
        return record.sha256 in self._kept

    def get(self, _remote: UPath, record: ShardRecord, release: Any = lambda: False) -> Held:
        """A shard, downloaded if it is not there."""
        if not self.has(record):
            self._make_room(record.bytes, release)
            self._kept[record.sha256] = record.bytes
            self.downloads += 1
        self._kept.move_to_end(record.sha256)
        return Held(self._readers, record.sha256)

    def _make_room(self, needed: int, release: Any) -> None:
        while sum(self._kept.values()) + needed > self.limit:
            unread = next((shard for shard in self._kept if not self._readers[shard]), None)
            if unread is not None:
                del self._kept[unread]
            elif not release():
                raise StorageError("all shards are in use")


class ShardsWithoutFiles(ShardSet):
    """A shard set that asks a cache for its shards, and maps none."""

    def __init__(self, manifest: Manifest, cache: Cache, folder: UPath | None = None) -> None:
        super().__init__(folder or UPath("memory://scale/train"), manifest)
        self._cache = cache  # type: ignore[assignment]

    def _map(self, number: int) -> Any:
        record = self.manifest.shards[number]
        assert self._cache is not None
        return None, self._cache.get(self.folder / record.file, record, self._release)


def manifest_of(images: int, shards: int, shard_bytes: int = SHARD_BYTES) -> Manifest:
    """A split of equal shards."""
    rows = np.diff(np.linspace(0, images, shards + 1).astype(int)).tolist()
    records = tuple(
        ShardRecord(file=f"shard-{number:05d}.arrow", rows=count, bytes=shard_bytes, sha256=f"{number:064x}")
        for number, count in enumerate(rows)
    )
    nothing: dict[str, Any] = {"boxes": {}, "ignored": 0, "rejected": {}, "examples": {}}
    return Manifest(dataset="scale", split="train", classes=("thing",), images=images, shards=records, **nothing)


@dataclass(frozen=True)
class Step:
    """What a step asks of the shards.

    Attributes:
        ahead: shards that are brought from here on; None within a window.
        read: shards that hold its images and their partners, in the order of the images.
    """

    ahead: NDArray[np.int64] | None
    read: list[int]


def steps_of(manifest: Manifest, nodes: int, epoch: int, batch_size: int | None = None) -> Iterator[Step]:
    """An epoch of the node in the middle."""
    shards = ShardsWithoutFiles(manifest, CountingCache(0))
    batch_size = batch_size or IMAGES_A_WORKER * nodes
    loader = Loader(shards, (416, 416), batch_size, augment=AUGMENT, rank=nodes // 2, world_size=nodes)
    order, told = loader._order(epoch), None
    for step in range(order.steps):
        job, window = loader._job(order, step, (416, 416)), order.window(step)
        numbers = [number for sample in job.samples.tolist() for number in (sample, *partners(sample, epoch, job.pool))]
        read = dict.fromkeys((np.searchsorted(shards.starts, numbers, side="right") - 1).tolist())
        yield Step(None if window == told else order.shards_from(step), list(read))
        told = window


def partners(sample: int, epoch: int, pool: NDArray[np.int64]) -> list[int]:
    """The images that share a mosaic with a sample, chosen as the loader does."""
    generator = sample_seed(0, epoch, sample)
    return generator.choice(pool, size=3).tolist() if generator.random() < AUGMENT.mosaic else []


def replay(steps: Sequence[Step], shards: ShardsWithoutFiles) -> None:
    """Ask for what the steps need, and ahead of them for what the prefetcher brings."""
    for step in steps:
        if step.ahead is not None:
            with suppress(StorageError):  # as the prefetcher does where there is no room
                for number in shards._fitting(step.ahead):
                    shards._fetch(number)
        for number in step.read:
            shards._shard(number)


def downloads(manifest: Manifest, nodes: int, epochs: int, limits: Sequence[int]) -> dict[int, list[int]]:
    """Downloads of one node in each epoch, by the size of its cache in bytes."""
    sets = {limit: ShardsWithoutFiles(manifest, CountingCache(limit)) for limit in limits}
    counted: dict[int, list[int]] = {limit: [] for limit in limits}
    for epoch in range(epochs):
        steps = list(steps_of(manifest, nodes, epoch))
        for limit, shards in sets.items():
            cache: Any = shards._cache
            before = cache.downloads
            replay(steps, shards)
            counted[limit].append(cache.downloads - before)
    return counted


def reading(nodes: Sequence[int], gibibytes: Sequence[int], epochs: int) -> list[dict[str, Any]]:
    """Downloads of a node for a set as large as COCO's training split of 2017, and for one ten times as large."""
    found = []
    for images, shards in ((118_287, 283), (1_182_870, 2_830)):
        for count in nodes:
            counted = downloads(manifest_of(images, shards), count, epochs, [size << 30 for size in gibibytes])
            by_cache = {f"{limit >> 30} GiB": numbers for limit, numbers in counted.items()}
            found.append({"images": images, "shards": shards, "nodes": count, "downloads_of_a_node": by_cache})
            print(f"{images:9,} images, {shards:5} shards, {count:5} nodes: {by_cache}")
    return found
