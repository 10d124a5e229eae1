"""Files wherever they are: local paths and URLs as one type, written completely or not at all."""

import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from upath import UPath

CHUNK_BYTES = 1 << 20

Url = str | os.PathLike[str] | UPath
"""A path, or a URL that fsspec knows."""


def location(url: Url) -> UPath:
    """A path, or any URL that fsspec knows (s3://, memory://, …), as a `UPath`; local ones absolute."""
    path = UPath(url)
    return path if is_remote(path) else UPath(Path(path.path).expanduser().absolute())


def is_remote(path: UPath) -> bool:
    """Whether `path` is an object store's or another fsspec file system's, not a local path."""
    return path.protocol not in ("", "file", "local")


def sha256(path: UPath) -> str:
    """Hex digest of a file's bytes, read in chunks."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def publish(path: UPath, data: bytes | str) -> None:
    """Write a file so that readers see all of it or nothing: rename locally, one upload elsewhere."""
    content = data.encode() if isinstance(data, str) else data
    path.parent.mkdir(parents=True, exist_ok=True)
    if is_remote(path):
        path.write_bytes(content)
        return
    descriptor, temporary = tempfile.mkstemp(dir=path.path.rpartition("/")[0], prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).chmod(0o644)
        Path(temporary).replace(path.path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


@contextmanager
def local_copy(path: UPath) -> Iterator[Path]:
    """A file or folder as a local path: itself where it is local, a temporary download elsewhere."""
    if not is_remote(path):
        yield Path(path.path)
        return
    with tempfile.TemporaryDirectory(prefix="yolo-dist-") as folder:
        target = Path(folder) / path.name
        path.fs.get(path.path, str(target), recursive=True)
        yield target


@contextmanager
def publish_folder(destination: UPath, last: str | None = None) -> Iterator[Path]:
    """Fill the yielded local folder; it appears at `destination` only if the block ends without an error.

    Args:
        destination: where it goes; what was there before is replaced.
        last: the file that marks the folder as complete; object stores get it after all others.
    """
    if is_remote(destination):
        with tempfile.TemporaryDirectory(prefix="yolo-dist-") as folder:
            yield Path(folder)
            files = sorted(file for file in Path(folder).rglob("*") if file.is_file())
            for file in sorted(files, key=lambda file: file.name == last):
                publish(destination / file.relative_to(folder).as_posix(), file.read_bytes())
        return
    target = Path(destination.path)
    target.parent.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}."))
    try:
        staging.chmod(0o755)
        yield staging
        if target.exists():
            shutil.rmtree(target)
        staging.replace(target)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
