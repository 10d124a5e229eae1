"""Converted datasets at rest: Arrow IPC files that are memory-mapped, and a manifest that vouches for them.

A split is a folder: `manifest.json`, written last, and `shard-00000.arrow`, `shard-00001.arrow`, …
"""

import shutil
import tempfile
import threading
import weakref
from collections.abc import Iterator, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from upath import UPath

from yolo_dist.data.manifest import MANIFEST, Manifest, ShardRecord, read_manifest
from yolo_dist.data.shard_file import Sample, ShardFile
from yolo_dist.errors import DataError, ShardCorrupt
from yolo_dist.storage import is_remote, location, require_reachable, sha256

__all__ = ["MANIFEST", "Manifest", "Sample", "ShardSet", "converted_splits", "open_split"]


class ShardSet(Sequence[Sample]):
    """The images of a converted split, in order, read where they lie.

    Safe to read from several threads. Pickles as its URL. Shards of an object store are downloaded when first read, to
    a temporary folder that goes with the object, and checked against the manifest.

    Attributes:
        folder: of the split.
        manifest: what it holds.
        starts: number of the first image of each shard, then that of all images; int64 [shards + 1].
    """

    def __init__(self, folder: UPath, manifest: Manifest) -> None:
        self.folder = folder
        self.manifest = manifest
        self.starts = np.array([0, *accumulate(shard.rows for shard in manifest.shards)], np.int64)
        self._open: dict[int, ShardFile] = {}
        self._lock = threading.Lock()
        self._downloads: Path | None = None

    @classmethod
    def open(cls, url: str | Path | UPath) -> "ShardSet":
        """The shard set at the folder of a split.

        Raises:
            DataError: no finished conversion is there, or its manifest is damaged.
        """
        folder = location(str(url))
        return cls(folder, read_manifest(folder))

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

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        number = int(index) + len(self) if index < 0 else int(index)
        if not 0 <= number < len(self):
            raise IndexError(f"image {index} of {len(self)}")
        shard = int(np.searchsorted(self.starts, number, side="right")) - 1
        return self._shard(shard)[number - int(self.starts[shard])]

    def __iter__(self) -> Iterator[Sample]:
        return (self[number] for number in range(len(self)))

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return ShardSet.open, (str(self.folder),)

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
            self._check(self.folder / record.file, record)

    def _shard(self, number: int) -> ShardFile:
        with self._lock:
            if number not in self._open:
                self._open[number] = self._map(self.manifest.shards[number])
            return self._open[number]

    def _map(self, record: ShardRecord) -> ShardFile:
        path, name = self._local(record), str(self.folder / record.file)
        try:
            return ShardFile(path, name)
        except (pa.ArrowException, OSError, KeyError):
            raise ShardCorrupt(name, record.sha256, "right, but not that of a shard") from None

    def _local(self, record: ShardRecord) -> Path:
        remote = self.folder / record.file
        if not is_remote(remote):
            self._check(remote, record)  # Arrow trusts its files: a flipped bit can end the process
            return Path(remote.path)
        if self._downloads is None:
            self._downloads = Path(tempfile.mkdtemp(prefix="yolo-dist-shards-"))
            weakref.finalize(self, shutil.rmtree, self._downloads, ignore_errors=True)
        path = self._downloads / record.file
        for attempt in range(2):
            remote.fs.get_file(remote.path, str(path))
            if attempt or sha256(UPath(path)) == record.sha256:
                break
        self._check(UPath(path), record, name=str(remote))
        return path

    def _check(self, path: UPath, record: ShardRecord, name: str | None = None) -> None:
        actual = sha256(path) if path.is_file() else "missing"
        if actual != record.sha256:
            raise ShardCorrupt(name or str(path), record.sha256, actual)


def open_split(destination: str | Path | UPath, split: str) -> ShardSet:
    """The shard set of one split of a converted dataset.

    Raises:
        DataError: the split was not converted; names those that were.
    """
    folder = location(str(destination))
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
    folder = location(str(destination))
    require_reachable(folder)
    children = folder.iterdir() if folder.is_dir() else ()
    there = sorted(child.name for child in children if (child / MANIFEST).is_file())
    if not there:
        raise DataError(f"{folder}: holds no converted split; run yolo-dist convert")
    return there
