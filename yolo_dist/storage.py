"""Files wherever they are: local paths and URLs as one type, written completely or not at all."""

import errno
import hashlib
import io
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import cast

from upath import UPath

from yolo_dist.errors import ConfigError
from yolo_dist.object_store import is_remote, persistently

CHUNK_BYTES = 1 << 20

Url = str | os.PathLike[str] | UPath
"""A path, or a URL that fsspec knows."""


def location(url: Url) -> UPath:
    """A path, or any URL that fsspec knows (s3://, memory://, …), as a `UPath`; local ones absolute.

    Raises:
        ConfigError: fsspec does not know the URL's protocol.
    """
    try:
        path = UPath(url)
    except (ValueError, ImportError) as error:
        raise ConfigError(str(url), [f"{error}; give a path, or a URL such as s3://bucket/folder"]) from None
    return path if is_remote(path) else UPath(Path(path.path).expanduser().absolute())


def sha256(path: UPath) -> str:
    """Hex digest of a file's bytes, read in chunks."""
    with path.open("rb") as file:
        return hashlib.file_digest(cast("io.BufferedReader", file), "sha256").hexdigest()


def publish(path: UPath, data: bytes | str) -> None:
    """Write a file so that readers see all of it or nothing: rename locally, one upload elsewhere.

    Raises:
        OSError: it cannot be written; names the file.
    """
    content = data.encode() if isinstance(data, str) else data
    if path.is_dir() and not is_remote(path):
        raise IsADirectoryError(errno.EISDIR, "is a folder, where a file shall go", str(path))
    path.parent.mkdir(parents=True, exist_ok=True)
    if is_remote(path):
        persistently(path, lambda: path.write_bytes(content))
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


def publish_new(path: UPath, data: bytes) -> None:
    """Write a file that is not there yet: of several that try at once, one does.

    Object stores need conditional writes for that (S3, MinIO, R2, SeaweedFS have them; Google's S3 interface has not).

    Raises:
        FileExistsError: it is there.
    """

    def put() -> None:
        try:
            path.fs.pipe_file(path.path, data, mode="create")
        except OSError as error:
            answer = getattr(error.__cause__, "response", {}).get("Error", {})
            if answer.get("Code") in ("PreconditionFailed", "ConditionalRequestConflict"):
                raise FileExistsError(errno.EEXIST, "is there already", str(path)) from error
            raise

    if is_remote(path):
        persistently(path, put)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with Path(path.path).open("xb") as created:
        created.write(data)


@contextmanager
def publish_file(path: UPath) -> Iterator[Path]:
    """Fill the yielded local file; it appears at `path` only if the block ends without an error and filled it."""
    folder = None if is_remote(path) else path.path.rpartition("/")[0]
    if folder is not None:
        Path(folder).mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".yolo-dist-") as temporary:
        file = Path(temporary) / path.name
        yield file
        if not file.exists():
            return
        if is_remote(path):
            persistently(path, lambda: path.fs.put_file(str(file), path.path))
        else:
            file.replace(path.path)


def remove(path: UPath) -> None:
    """Delete a file, or a folder with all that is in it, wherever it is, if it exists."""
    if not path.exists():
        return
    if is_remote(path):
        path.fs.rm(path.path, recursive=True)
    elif path.is_dir():
        shutil.rmtree(path.path)
    else:
        path.unlink()


@contextmanager
def local_copy(path: UPath) -> Iterator[Path]:
    """A file or folder as a local path: itself where it is local, a temporary download elsewhere."""
    if not is_remote(path):
        yield Path(path.path)
        return
    with tempfile.TemporaryDirectory(prefix="yolo-dist-") as folder:
        target = Path(folder) / path.name
        persistently(path, lambda: path.fs.get(path.path, str(target), recursive=True))
        yield target


@contextmanager
def publish_folder(destination: UPath, last: str | None = None) -> Iterator[Path]:
    """Fill the yielded local folder; it appears at `destination` only if the block ends without an error.

    Args:
        destination: where it goes; what was published there before is replaced.
        last: the file that marks the folder as complete; object stores get it after all others.

    Raises:
        ConfigError: something else than a folder with `last` in it is there, which must not be lost.
    """
    if is_remote(destination):
        with tempfile.TemporaryDirectory(prefix="yolo-dist-") as folder:
            yield Path(folder)
            _upload(Path(folder), destination, last)
        return
    target = Path(destination.path)
    require_ours(target, last)
    made = [parent for parent in target.parents if not parent.exists()]
    target.parent.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}."))
    try:
        staging.chmod(0o755)
        yield staging
        replace_folder(staging, target)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
        _remove_empty(made)


def _upload(folder: Path, destination: UPath, last: str | None) -> None:
    if last is not None and (destination / last).exists():
        (destination / last).unlink()
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    for file in sorted(files, key=lambda file: file == folder / (last or "")):
        publish(destination / file.relative_to(folder).as_posix(), file.read_bytes())


def require_ours(target: Path, marker: str | None) -> None:
    """Refuse to replace a local folder of other files: one that is not empty and has no `marker` in it.

    Raises:
        ConfigError: it is one, or a file.
    """
    if not target.exists() or (target.is_dir() and not any(target.iterdir())):
        return
    if not target.is_dir():
        raise ConfigError(str(target), ["is a file, where a folder shall go; remove it or give another place"])
    if marker is not None and not (target / marker).exists():
        raise ConfigError(
            str(target), [f"holds other files (no {marker} is among them); empty it or give another place"]
        )


def _remove_empty(folders: list[Path]) -> None:
    """Remove folders, innermost first, up to one in which something is."""
    with suppress(OSError):
        for folder in folders:
            folder.rmdir()


def replace_folder(staging: Path, target: Path) -> None:
    """Put `staging` in the place of `target`, which is missing for no longer than two renames take."""
    old = staging.with_name(f"{staging.name}.old")
    if target.exists():
        shutil.rmtree(old, ignore_errors=True)  # what a process left that was killed between the renames and the end
        target.replace(old)
    staging.replace(target)
    shutil.rmtree(old, ignore_errors=True)
