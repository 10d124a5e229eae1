"""A conversion under way: shards that are finished stay where an interrupted one finds them again.

On a disk they lie in a hidden folder beside the split's, which takes its place at the end. In an object store, where
nothing can be renamed, they lie in the split's own folder, which is none until its manifest is there.
"""

import fcntl
import json
import os
import re
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError
from upath import UPath

from yolo_dist.data.conversion.index import Part
from yolo_dist.data.conversion.shard_writer import WrittenShard, write_shard
from yolo_dist.data.conversion.tally import Tally
from yolo_dist.data.manifest import MANIFEST, Manifest, ShardRecord
from yolo_dist.errors import ConfigError, ConversionError
from yolo_dist.object_store import is_remote, persistently
from yolo_dist.storage import publish, publish_file, remove, replace_folder, require_ours, sha256

_OURS = re.compile(rf"shard-\d{{5,}}\.(arrow|json)|{re.escape(MANIFEST)}")


@dataclass(frozen=True)
class Staging:
    """The unfinished conversion of the split at `target`."""

    target: UPath

    @property
    def folder(self) -> UPath:
        """Where its shards are until it is finished."""
        return self.target if is_remote(self.target) else self.target.with_name(f".{self.target.name}.unfinished")

    @contextmanager
    def held(self) -> Iterator[None]:
        """Have the split for this process alone while the block lasts.

        Not in an object store: there two that convert the same files write the same bytes under the same names.

        Raises:
            ConversionError: another process is converting it.
        """
        if is_remote(self.target):
            yield
            return
        lock = self._lock()
        try:
            yield
        finally:
            with suppress(OSError):  # what is not empty stays, and others write beside it
                Path(self.folder.path).rmdir()
                Path(self.target.path).parent.rmdir()
            os.close(lock)

    def _lock(self) -> int:
        """The unfinished folder, open; its lock ends with the process however that ends."""
        folder = Path(self.folder.path)
        while True:
            folder.mkdir(parents=True, exist_ok=True)
            lock = os.open(folder, os.O_RDONLY)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(lock)
                message = f"{self.target}: another process is converting it; wait for it or stop it"
                raise ConversionError(message) from None
            except OSError:  # a network's file system that cannot lock folders
                return lock
            with suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(lock), folder.stat()):
                    return lock
            os.close(lock)  # that of a conversion which has just ended

    def open(self) -> None:
        """Make ready; a conversion that is replaced goes now from an object store, at the end from a disk.

        Raises:
            ConfigError: a file, or a folder of other files, is in its place.
        """
        if not is_remote(self.target):
            require_ours(Path(self.target.path), MANIFEST)
            return
        if strangers := [path.name for path in self._present() if not _OURS.fullmatch(path.name)]:
            raise ConfigError(
                str(self.target), [f"holds other files, such as {strangers[0]}; empty it or give another place"]
            )
        remove(self.target / MANIFEST)

    def shard(self, number: int, part: Part) -> WrittenShard:
        """Write a shard, unless it is there."""
        record = self.folder / f"{_name(number)}.json"
        if done := self._finished(record, part):
            return done
        name = f"{_name(number)}.arrow"
        with publish_file(self.folder / name) as file:
            written = write_shard(part.images, file, name)
        shard = written.record.model_dump() if written.record else None
        content = {"fingerprint": part.fingerprint, "record": shard, "tally": written.tally.to_json()}
        publish(record, json.dumps(content))
        return written

    def finish(self, manifest: Manifest) -> None:
        """Make the conversion known: all of it is there, and nothing else."""
        publish(self.folder / MANIFEST, manifest.to_json())
        self.tidy(manifest)
        if not is_remote(self.target):
            replace_folder(Path(self.folder.path), Path(self.target.path))

    def tidy(self, manifest: Manifest) -> None:
        """Delete what is not of the finished conversion; one that was killed may have left some of it."""
        self._clear({MANIFEST, *(shard.file for shard in manifest.shards)})

    def discard(self) -> None:
        """Delete what was written."""
        self._clear()

    def _clear(self, wanted: Collection[str] = ()) -> None:
        """Delete what is not wanted; in an object store, where others may write too, only what is named as ours."""
        for path in self._present():
            if path.name not in wanted and (not is_remote(path) or _OURS.fullmatch(path.name)):
                remove(path)

    def _present(self) -> list[UPath]:
        return persistently(self.folder, lambda: list(self.folder.iterdir()) if self.folder.is_dir() else [])

    def _finished(self, record: UPath, part: Part) -> WrittenShard | None:
        """What an interrupted conversion left of this shard, if it is whole and of the same images."""
        try:
            content = persistently(record, record.read_bytes)
        except FileNotFoundError:
            return None
        written = self._as_recorded(content, part)
        if written is None:
            remove(record)  # before its shard is another, which it would vouch for after the next interruption
        return written

    def _as_recorded(self, content: bytes, part: Part) -> WrittenShard | None:
        try:
            found = json.loads(content)
            if found["fingerprint"] != part.fingerprint:
                return None
            shard = found["record"] and ShardRecord.model_validate(found["record"])
            return WrittenShard(shard, Tally.from_json(found["tally"])) if self._is_whole(shard) else None
        except (FileNotFoundError, LookupError, TypeError, ValueError, ValidationError):
            return None

    def _is_whole(self, shard: ShardRecord | None) -> bool:
        """Uploads are complete or not at all; a disk may have lost what it had not written when the power failed."""
        if shard is None:
            return True
        path = self.folder / shard.file
        if is_remote(path):
            return persistently(path, lambda: path.stat().st_size) == shard.bytes
        return sha256(path) == shard.sha256


def _name(number: int) -> str:
    return f"shard-{number:05d}"
