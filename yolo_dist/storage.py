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
from yolo_dist.temporary import temporary_folder

CHUNK_BYTES = 1 << 20
OTHERS_WERE_FIRST = ("PreconditionFailed", "ConditionalRequestConflict")
"""What S3 says of a conditional write that lost."""

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
    if is_remote(path):
        persistently(path, lambda: _write_remote(path, content))
        return
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, "is a folder, where a file shall go", str(path))
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        _write_local(path, content)
    except OSError as error:
        if error.errno is None:
            raise
        raise OSError(error.errno, error.strerror, str(path)) from error  # it names the temporary file


def _write_local(path: UPath, content: bytes) -> None:
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


def _write_remote(path: UPath, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def create(path: UPath, data: str) -> bool:
    """Write a file completely unless there is one; of several who try at once with data of their own, one does.

    Object stores need conditional writes for it, as Amazon's has them.

    Returns:
        Whether this call wrote it.
    """
    if is_remote(path):
        return persistently(path, lambda: _create_remote(path, data))
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with tempfile.NamedTemporaryFile("w", dir=path.path.rpartition("/")[0], prefix=f".{path.name}.") as file:
            file.write(data)
            file.flush()
            Path(file.name).chmod(0o644)
            _link_or_write(file.name, path.path, data)
    except FileExistsError:
        return False
    return True


def _link_or_write(complete: str, destination: str, data: str) -> None:
    try:
        os.link(complete, destination)
    except FileExistsError:
        raise
    except OSError:  # a file system without links: others may see half of it for a moment
        with Path(destination).open("x") as file:
            file.write(data)


def _create_remote(path: UPath, data: str) -> bool:
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        path.fs.pipe_file(path.path, data.encode(), mode="create")
    except FileExistsError:
        pass
    except OSError as error:
        answer = getattr(error.__cause__, "response", {})
        if answer.get("Error", {}).get("Code") not in OTHERS_WERE_FIRST:
            raise
    else:
        return True
    with suppress(FileNotFoundError):
        return bool(path.fs.cat_file(path.path) == data.encode())  # an answer that was lost, and the second attempt
    return False


@contextmanager
def publish_file(path: UPath) -> Iterator[Path]:
    """Fill the yielded local file; it appears at `path` only if the block ends without an error and filled it."""
    folder = None if is_remote(path) else path.path.rpartition("/")[0]
    if folder is not None:
        Path(folder).mkdir(parents=True, exist_ok=True)
    with temporary_folder(folder) as temporary:
        file = temporary / path.name
        yield file
        if not file.exists():
            return
        if is_remote(path):
            persistently(path, lambda: path.fs.put_file(str(file), path.path))
        else:
            file.replace(path.path)


def remove(path: UPath) -> None:
    """Delete a file, or a folder with all that is in it, wherever it is, if it exists."""
    if is_remote(path):
        persistently(path, lambda: path.exists() and path.fs.rm(path.path, recursive=True))
    elif not path.exists():
        return
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
    with temporary_folder() as folder:
        target = folder / path.name
        persistently(path, lambda: path.fs.get(path.path, str(target), recursive=True))
        yield target


def copy_folder(source: UPath, destination: UPath, last: str) -> None:
    """Publish a folder a second time; local files that are never written to again share their place on the disk.

    Args:
        source: a folder that was published.
        destination: where its copy goes.
        last: the file that marks a folder as complete.
    """
    with local_copy(source) as there, publish_folder(destination, last) as folder:
        shutil.copytree(there, folder, copy_function=_link, dirs_exist_ok=True)


def _link(source: str, destination: str) -> None:
    try:
        os.link(source, destination)
    except OSError:  # another disk, or one that has no links
        shutil.copy2(source, destination)


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
        with temporary_folder() as folder:
            yield folder
            _upload(folder, destination, last)
        return
    target = Path(destination.path)
    require_ours(target, last)
    made = [parent for parent in target.parents if not parent.exists()]
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        with temporary_folder(target.parent) as staging:
            staging.chmod(0o755)
            yield staging
            replace_folder(staging, target)
    finally:
        _remove_empty(made)


def _upload(folder: Path, destination: UPath, last: str | None) -> None:
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    if last is not None and (destination / last).exists():  # without it nothing tells that what is there is ours
        _remove_all_but({file.relative_to(folder).as_posix() for file in files}, destination)
        remove(destination / last)
    for file in sorted(files, key=lambda file: file == folder / (last or "")):
        publish(destination / file.relative_to(folder).as_posix(), file.read_bytes())


def _remove_all_but(names: set[str], folder: UPath) -> None:
    root = folder.path.rstrip("/")
    folder.fs.invalidate_cache(root)
    found = persistently(folder, lambda: folder.fs.find(root))
    if others := [path for path in found if path[len(root) + 1 :] not in names]:
        persistently(folder, lambda: folder.fs.rm(others))


def require_folder(path: UPath) -> None:
    """Refuse a local path that is taken by a file.

    Raises:
        ConfigError: it is.
    """
    if not is_remote(path) and path.is_file():
        raise ConfigError(str(path), ["is a file, where a folder shall go; remove it or give another place"])


def require_ours(target: Path, marker: str | None) -> None:
    """Refuse to replace a local folder of other files: one that is not empty and has no `marker` in it.

    Raises:
        ConfigError: it is one, or a file.
    """
    if not target.exists() or (target.is_dir() and not any(target.iterdir())):
        return
    require_folder(UPath(target))
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
