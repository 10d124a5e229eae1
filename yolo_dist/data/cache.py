"""Shards of object stores on this machine's disk: a folder of bounded size that all its processes share.

Files are named by their hash, so a shard that two datasets or runs have is there once, and what is in a file is known
without asking anyone. Locks of the operating system, which end with their process however it ends, say who downloads a
shard and who reads it.
"""

import fcntl
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from upath import UPath

from yolo_dist.data.manifest import ShardRecord
from yolo_dist.errors import ShardCorrupt, StorageError
from yolo_dist.object_store import DISK_FULL, persistently
from yolo_dist.storage import sha256

FOLDER_VARIABLE, SIZE_VARIABLE = "YOLO_DIST_CACHE", "YOLO_DIST_CACHE_GIB"
DEFAULT_FOLDER, DEFAULT_GIB = "~/.cache/yolo-dist/shards", 32.0
SHARD, PART, LOCK = ".arrow", ".part", ".lock"
HASH_DIGITS = 64
FETCHES = 2
"""Downloads of a shard before its hash counts as wrong in the store."""


@dataclass(frozen=True)
class CachedShard:
    """A shard that stays on the disk for as long as this object is there.

    Attributes:
        path: of the file, whose hash was checked.
    """

    path: Path
    _lock: int

    def __del__(self) -> None:
        os.close(self._lock)


@dataclass
class ShardCache:
    """A folder of shards, least recently used out first.

    Attributes:
        folder: of the files; others in it are never touched.
        limit: bytes that all shards may take, those that are being downloaded included.
    """

    folder: Path
    limit: int
    _checked: set[tuple[int, int]] = field(default_factory=set)

    @classmethod
    def of_this_machine(cls) -> "ShardCache":
        """The cache that the environment variables YOLO_DIST_CACHE (folder) and YOLO_DIST_CACHE_GIB name.

        Raises:
            StorageError: the size is no number.
        """
        folder, size = os.environ.get(FOLDER_VARIABLE, DEFAULT_FOLDER), os.environ.get(SIZE_VARIABLE, str(DEFAULT_GIB))
        try:
            return cls(Path(folder).expanduser().absolute(), int(float(size) * 2**30))
        except (ValueError, OverflowError):
            raise StorageError(f"{SIZE_VARIABLE} is {size!r}, not a number of gibibytes") from None

    def get(self, remote: UPath, record: ShardRecord, release: Callable[[], bool] = lambda: False) -> CachedShard:
        """A shard, downloaded if it is not there.

        Args:
            remote: where it comes from.
            record: its hash and size.
            release: gives up a shard that the caller holds, and says whether it held one; called while there is no
                room.

        Raises:
            ShardCorrupt: what the store has, fetched twice, does not match the hash.
            StorageError: the store fails, or there is no room.
        """
        path = self.folder / f"{record.sha256}{SHARD}"
        mismatches = 0
        while mismatches < FETCHES:
            if held := self._hold(path):
                if self._is_right(held, record):
                    return held
                path.unlink(missing_ok=True)
            mismatches += not self._download(remote, path, record, release)
        raise ShardCorrupt(str(remote), record.sha256, f"another, fetched {FETCHES} times")

    def has(self, record: ShardRecord) -> bool:
        """Whether a shard is there; it may be damaged."""
        return (self.folder / f"{record.sha256}{SHARD}").exists()

    def _hold(self, path: Path) -> CachedShard | None:
        """Lock a file that is there against deletion."""
        try:
            lock = os.open(path, os.O_RDONLY)
        except FileNotFoundError:
            return None
        held = CachedShard(path, lock)
        fcntl.flock(lock, fcntl.LOCK_SH)
        if not _is_at(lock, path):  # deleted between the two calls
            return None
        with suppress(OSError):  # when it was last used; when it was written stays
            os.utime(path, ns=(time.time_ns(), os.fstat(lock).st_mtime_ns))
        return held

    def _is_right(self, held: CachedShard, record: ShardRecord) -> bool:
        """Whether a file has its hash; read once by each process."""
        facts = os.fstat(held._lock)
        version = (facts.st_ino, facts.st_mtime_ns)
        if version not in self._checked and _matches(held.path, record):
            self._checked.add(version)
        return version in self._checked

    def _download(self, remote: UPath, path: Path, record: ShardRecord, release: Callable[[], bool]) -> bool:
        """Put a file in its place, unless somebody else just did; False if it does not match its hash."""
        self.folder.mkdir(parents=True, exist_ok=True)
        part, lock = path.with_suffix(PART), path.with_suffix(LOCK)
        with _locked(lock) as mine:
            if not mine:
                return True
            try:
                if path.exists():
                    return True
                os.truncate(lock, record.bytes)  # takes no space, and tells all processes how much will be taken
                self._make_room(record, release)
                self._fetch(remote, part, release)
                if matches := _matches(part, record):
                    part.replace(path)
                return matches
            finally:
                part.unlink(missing_ok=True)
                lock.unlink(missing_ok=True)

    def _fetch(self, remote: UPath, part: Path, release: Callable[[], bool]) -> None:
        """Download a file; where the disk is fuller than the cache knows, other shards go until it fits."""
        while True:
            try:
                persistently(remote, lambda: remote.fs.get_file(remote.path, str(part)))
            except OSError as error:
                if error.errno not in DISK_FULL:
                    raise
                if not self._delete_oldest(enough=1) and not release():
                    raise StorageError(
                        f"{self.folder}: the disk is full; set {FOLDER_VARIABLE} to a folder on a larger one, or "
                        f"{SIZE_VARIABLE} to less than {self.limit / 2**30:g}"
                    ) from error
                error.__traceback__ = None  # whoever keeps it would keep the frames, and with them the locks in them
            else:
                return

    def _make_room(self, record: ShardRecord, release: Callable[[], bool]) -> None:
        """Delete what killed processes left, and what was not used for longest, until what is reserved fits."""
        for path, _ in self._files(PART, LOCK):
            _delete_unused(path)
        while (excess := self.used() - self.limit) > 0:
            if excess > self._delete_oldest(excess) and not release():
                raise StorageError(
                    f"{self.folder}: no room for {record.bytes:,} more bytes: {SIZE_VARIABLE} is "
                    f"{self.limit / 2**30:g}, and all shards there are in use; allow more"
                )

    def used(self) -> int:
        """Bytes that the shards take now, or will when they are downloaded."""
        return sum(facts.st_size for _, facts in self._files(SHARD, LOCK))

    def _delete_oldest(self, enough: int) -> int:
        """Delete shards that nobody reads until `enough` bytes are free; gives how many became so."""
        freed = 0
        for path, facts in sorted(self._files(SHARD), key=lambda item: item[1].st_atime_ns):
            if freed < enough and _delete_unused(path):
                freed += facts.st_size
        return freed

    def _files(self, *suffixes: str) -> Iterator[tuple[Path, os.stat_result]]:
        for path in self.folder.iterdir() if self.folder.is_dir() else ():
            if path.suffix in suffixes and len(path.stem) == HASH_DIGITS:
                with suppress(FileNotFoundError):
                    yield path, path.stat()


def _matches(path: Path, record: ShardRecord) -> bool:
    return path.stat().st_size == record.bytes and sha256(UPath(path)) == record.sha256


@contextmanager
def _locked(path: Path) -> Iterator[bool]:
    """Make a file and hold its lock; False if somebody else, who had it, deleted it meanwhile."""
    lock = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield _is_at(lock, path)
    finally:
        os.close(lock)


def _is_at(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


def _delete_unused(path: Path) -> bool:
    """Delete a shard unless somebody reads it, or a part of one unless it is being downloaded."""
    guard = path if path.suffix == SHARD else path.with_suffix(LOCK)
    try:
        lock = os.open(guard, os.O_RDWR | (os.O_CREAT if path.suffix == PART else 0))
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if not _is_at(lock, guard):
            return False
        path.unlink(missing_ok=True)
        guard.unlink(missing_ok=True)
    except OSError:  # the lock is held
        return False
    finally:
        os.close(lock)
    return True
