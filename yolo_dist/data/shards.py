"""Converted datasets at rest: Arrow IPC files that are memory-mapped, and a manifest that vouches for them.

A split is a folder: `manifest.json`, written last, and `shard-00000.arrow`, `shard-00001.arrow`, …
"""

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import accumulate, islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from upath import UPath

from yolo_dist.data.cache import CachedShard, ShardCache
from yolo_dist.data.manifest import MANIFEST, Manifest, ShardRecord, read_manifest
from yolo_dist.data.order import WINDOW_SHARDS
from yolo_dist.data.prefetch import Prefetcher
from yolo_dist.data.shard_file import Sample, SampleSequence, ShardFile
from yolo_dist.errors import DataError, ShardCorrupt
from yolo_dist.object_store import is_remote, persistently, reaching
from yolo_dist.storage import location, sha256

__all__ = ["MANIFEST", "Manifest", "Sample", "ShardSet", "converted_splits", "open_split"]


OPEN_SHARDS = 2 * WINDOW_SHARDS + 2
"""Files that are mapped at a time: those of two windows, and two for who reads in between."""


class ShardSet(SampleSequence):
    """The images of a converted split, in order, read where they lie.

    Safe to read from several threads. Pickles as its URL, and the number of its images if they are the first ones of
    a split. Shards of an object store are read from this machine's cache.

    Attributes:
        folder: of the split.
        manifest: what it holds.
        starts: number of the first image of each shard, then that of all images; int64 [shards + 1].
    """

    def __init__(self, folder: UPath, manifest: Manifest, images: int | None = None) -> None:
        self.folder = folder
        self.manifest = manifest if images is None else manifest.first(images)
        self.starts = np.array([0, *accumulate(shard.rows for shard in self.manifest.shards)], np.int64)
        self._images = images
        self._cache = ShardCache.of_this_machine() if is_remote(folder) else None
        self._open: OrderedDict[int, tuple[ShardFile, CachedShard | None]] = OrderedDict()
        self._checked: set[int] = set()
        self._lock = threading.Lock()

    @classmethod
    def open(cls, url: str | Path | UPath, images: int | None = None) -> "ShardSet":
        """The shard set at the folder of a split; of its first `images` images, if that is a number.

        Raises:
            DataError: no finished conversion is there, or its manifest is damaged.
        """
        folder = location(url)
        return cls(folder, read_manifest(folder), images)

    def first(self, images: int) -> "ShardSet":
        """The set of the first images alone; itself where there are no more."""
        return self if images >= len(self) else ShardSet(self.folder, self.manifest, images)

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names; labels are positions in it."""
        return self.manifest.classes

    @property
    def fingerprint(self) -> str:
        """Hex sha256 of the manifest's content, which holds the hashes of all shards."""
        return self.manifest.fingerprint

    def __len__(self) -> int:
        return int(self.starts[-1])

    def sample(self, number: int) -> Sample:
        """Image `number`, from 0; a view into the mapped file."""
        shard = int(np.searchsorted(self.starts, number, side="right")) - 1
        return self._shard(shard)[number - int(self.starts[shard])]

    def __reduce__(self) -> tuple[Any, tuple[UPath, int | None]]:
        return ShardSet.open, (self.folder, self._images)

    def box_sizes(self) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Image number and (width, height) of every box that is not ignored, int64 [n] and float32 [n, 2], pixels."""
        kept = [(number, sample.boxes.select(~sample.boxes.ignore).xyxy) for number, sample in enumerate(self)]
        numbers = np.repeat(np.arange(len(kept)), [len(xyxy) for _, xyxy in kept])
        xyxy = np.concatenate([np.zeros((0, 4), np.float32), *(xyxy for _, xyxy in kept)])
        return numbers, xyxy[:, 2:] - xyxy[:, :2]

    def verify(self) -> None:
        """Recompute the hash of every shard.

        Raises:
            ShardCorrupt: the first one that does not match, or is missing.
        """
        for record in self.manifest.shards:
            self._check(record)

    @contextmanager
    def prefetching(self) -> Iterator[Callable[[Iterable[int]], None]]:
        """While the block lasts, the function it is given brings shards to this machine in the background.

        It takes the numbers of the shards that are needed next, in that order, and brings no more of them than half of
        the cache holds. Shards on a disk need no bringing.
        """
        if self._cache is None:
            yield lambda _: None
            return
        prefetcher = Prefetcher(self._fetch)
        try:
            yield lambda shards: prefetcher.want(self._fitting(shards))
        finally:
            prefetcher.close()

    def _fitting(self, shards: Iterable[int]) -> Iterator[int]:
        assert self._cache is not None
        room = self._cache.limit // 2
        for number in map(int, islice(shards, OPEN_SHARDS)):
            room -= self.manifest.shards[number].bytes
            if room < 0:
                return
            yield number

    def _fetch(self, number: int) -> None:
        record = self.manifest.shards[number]
        if self._cache is not None and not self._cache.has(record):
            self._cache.get(self.folder / record.file, record)  # never in the place of one that is being read

    def _shard(self, number: int) -> ShardFile:
        with self._lock:
            if number in self._open:
                self._open.move_to_end(number)
                return self._open[number][0]
        opened = self._map(number)
        with self._lock:
            self._open[number] = opened
            while len(self._open) > OPEN_SHARDS:
                self._open.popitem(last=False)
        return opened[0]

    def _map(self, number: int) -> tuple[ShardFile, CachedShard | None]:
        record = self.manifest.shards[number]
        remote, cached = self.folder / record.file, None
        if self._cache is None:
            if number not in self._checked:  # Arrow trusts its files: a flipped bit can end the process
                self._check(record)
                self._checked.add(number)
            path = Path(remote.path)
        else:
            cached = self._cache.get(remote, record, self._release)
            path = cached.path
        try:
            return ShardFile(path, str(remote), record.rows, len(self.classes)), cached
        except (pa.ArrowException, ValueError, OSError, KeyError):
            raise ShardCorrupt(str(remote), record.sha256, "right, but not that of a shard") from None

    def _release(self) -> bool:
        """Give up the shard that was not read for longest."""
        with self._lock:
            if not self._open:
                return False
            self._open.popitem(last=False)
            return True

    def _check(self, record: ShardRecord) -> None:
        path = self.folder / record.file
        actual = persistently(path, lambda: sha256(path) if path.is_file() else "missing")
        if actual != record.sha256:
            raise ShardCorrupt(str(path), record.sha256, actual)


def open_split(destination: str | Path | UPath, split: str) -> ShardSet:
    """The shard set of one split of a converted dataset.

    Raises:
        DataError: the split was not converted; names those that were.
    """
    folder = location(destination)
    there = converted_splits(folder)
    if split not in there:
        raise DataError(
            f"{folder}: split {split!r} is not converted, it holds {', '.join(there)}; run yolo-dist convert"
        )
    return ShardSet.open(folder / split)


def converted_splits(destination: str | Path | UPath) -> list[str]:
    """Names of the splits that are converted at a destination, sorted.

    Raises:
        DataError: there is none.
    """
    folder = location(destination)
    with reaching(folder):
        children = folder.iterdir() if folder.is_dir() else ()
        there = sorted(child.name for child in children if child.name[0] != "." and (child / MANIFEST).is_file())
    if not there:
        raise DataError(f"{folder}: holds no converted split; run yolo-dist convert")
    return there
