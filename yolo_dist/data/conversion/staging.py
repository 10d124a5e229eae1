"""A conversion under way: shards that are finished stay where an interrupted one finds them again.

On a disk they lie in a hidden folder beside the split's, which takes its place at the end. In an object store, where
nothing can be renamed, they lie in the split's own folder, which is none until its manifest is there.
"""

import json
import shutil
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError
from upath import UPath

from yolo_dist.data.conversion.index import Part
from yolo_dist.data.conversion.shard_writer import WrittenShard, write_shard
from yolo_dist.data.conversion.tally import Tally
from yolo_dist.data.manifest import MANIFEST, Manifest, ShardRecord
from yolo_dist.object_store import is_remote
from yolo_dist.storage import publish, publish_file, replace_folder, require_ours, sha256


@dataclass(frozen=True)
class Staging:
    """The unfinished conversion of the split at `target`."""

    target: UPath

    @property
    def folder(self) -> UPath:
        """Where its shards are until it is finished."""
        return self.target if is_remote(self.target) else self.target.with_name(f".{self.target.name}.unfinished")

    def open(self) -> None:
        """Make ready; a conversion that is replaced goes now from an object store, at the end from a disk.

        Raises:
            ConfigError: a file, or a folder of other files, is in its place.
        """
        if is_remote(self.target):
            with suppress(FileNotFoundError):
                (self.target / MANIFEST).unlink()
        else:
            require_ours(Path(self.target.path), MANIFEST)

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
        wanted = {MANIFEST, *(shard.file for shard in manifest.shards)}
        for path in self.folder.iterdir():
            if path.name not in wanted and not is_remote(path):
                _delete(path)
        publish(self.folder / MANIFEST, manifest.to_json())
        if is_remote(self.target):
            for path in self.folder.iterdir():
                if path.name not in wanted:
                    _delete(path)
        else:
            replace_folder(Path(self.folder.path), Path(self.target.path))

    def discard(self) -> None:
        """Delete what was written."""
        if self.folder.exists():
            _delete(self.folder)
        if not is_remote(self.target):
            with suppress(OSError):
                self.target.parent.rmdir()

    def _finished(self, record: UPath, part: Part) -> WrittenShard | None:
        """What an interrupted conversion left of this shard, if it is whole and of the same images."""
        try:
            found = json.loads(record.read_bytes())
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
            return path.stat().st_size == shard.bytes
        return sha256(path) == shard.sha256


def _name(number: int) -> str:
    return f"shard-{number:05d}"


def _delete(path: UPath) -> None:
    if is_remote(path):
        path.fs.rm(path.path, recursive=True)
    elif path.is_dir():
        shutil.rmtree(path.path)
    else:
        path.unlink()
