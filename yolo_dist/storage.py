"""Files wherever they are: local paths and URLs as one type, written completely or not at all."""

import errno
import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from upath import UPath

from yolo_dist.errors import ConfigError, StorageError

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


@contextmanager
def reaching(path: UPath) -> Iterator[None]:
    """What goes wrong with an object store inside the block, other than a missing file, as an error with its URL.

    Raises:
        StorageError: it cannot be reached, or refuses the credentials.
    """
    try:
        yield
    except FileNotFoundError:
        raise
    except Exception as error:
        theirs = isinstance(error, OSError) or type(error).__module__.startswith(("botocore", "aiohttp"))
        if not is_remote(path) or not theirs:
            raise
        raise StorageError(
            f"{path}: cannot be used: {' '.join(str(error).split())}; set AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY "
            "and, for another store than Amazon's, AWS_ENDPOINT_URL"
        ) from error


def require_reachable(path: UPath) -> None:
    """Ask the store of a URL about it.

    Raises:
        StorageError: see `reaching`.
    """
    with reaching(path):
        path.exists()


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
    """Write a file so that readers see all of it or nothing: rename locally, one upload elsewhere.

    Raises:
        OSError: it cannot be written; names the file.
    """
    content = data.encode() if isinstance(data, str) else data
    if path.is_dir() and not is_remote(path):
        raise IsADirectoryError(errno.EISDIR, "is a folder, where a file shall go", str(path))
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
    _require_ours(target, last)
    made = [parent for parent in target.parents if not parent.exists()]
    target.parent.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}."))
    try:
        staging.chmod(0o755)
        yield staging
        _swap(staging, target)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
        _remove_empty(made)


def _upload(folder: Path, destination: UPath, last: str | None) -> None:
    if last is not None and (destination / last).exists():
        (destination / last).unlink()
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    for file in sorted(files, key=lambda file: file == folder / (last or "")):
        publish(destination / file.relative_to(folder).as_posix(), file.read_bytes())


def _require_ours(target: Path, marker: str | None) -> None:
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


def _swap(staging: Path, target: Path) -> None:
    """Put `staging` in the place of `target`, which is missing for no longer than two renames take."""
    old = staging.with_name(f"{staging.name}.old")
    if target.exists():
        target.replace(old)
    staging.replace(target)
    shutil.rmtree(old, ignore_errors=True)
