"""Object stores: where they are, what goes wrong with them, and trying again."""

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import tenacity
from upath import UPath

from yolo_dist.config import Config
from yolo_dist.errors import StorageError

ATTEMPTS = 5
LONGEST_WAIT = 10.0
"""Seconds between two attempts."""

_FINAL = (FileNotFoundError, FileExistsError, PermissionError, IsADirectoryError, NotADirectoryError)
DISK_FULL = (errno.ENOSPC, errno.EDQUOT)
_THEIR_MODULES = ("botocore", "aiobotocore", "aiohttp", "asyncio", "fsspec")

T = TypeVar("T")


class ObjectStoreConfig(Config):
    """Where `s3://` URLs lead. Keys are never in a recipe: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY."""

    endpoint: str | None = None
    """URL of another store than Amazon's; AWS_ENDPOINT_URL by default."""
    region: str | None = None
    """AWS_REGION by default."""

    def apply(self) -> None:
        """Set this process's AWS variables, which the workers it starts get too."""
        for name, value in (("AWS_ENDPOINT_URL", self.endpoint), ("AWS_REGION", self.region)):
            if value is not None:
                os.environ[name] = value


def is_remote(path: UPath) -> bool:
    """Whether `path` is an object store's or another fsspec file system's, not a local path."""
    return path.protocol not in ("", "file", "local")


@contextmanager
def reaching(path: UPath) -> Iterator[None]:
    """What goes wrong with an object store inside the block, as an error with its URL; but files missing or in the way.

    Raises:
        StorageError: it cannot be reached, or refuses the credentials.
    """
    try:
        yield
    except (FileNotFoundError, FileExistsError):
        raise
    except Exception as error:
        if not is_remote(path) or not _is_theirs(error):
            raise
        raise StorageError(
            f"{path}: cannot be used: {' '.join(str(error).split()) or type(error).__name__}; set AWS_ACCESS_KEY_ID, "
            "AWS_SECRET_ACCESS_KEY and, for another store than Amazon's, AWS_ENDPOINT_URL"
        ) from error


def require_reachable(path: UPath) -> None:
    """Ask the store of a URL about it.

    Raises:
        StorageError: see `reaching`.
    """
    with reaching(path):
        path.exists()


def persistently(path: UPath, action: Callable[[], T]) -> T:
    """The result of an action on a file of an object store, which is tried again while the store fails.

    A missing file and refused credentials are told at once; so is what a local disk has to say.

    Raises:
        StorageError: the store still failed at the last attempt.
    """
    attempts = tenacity.Retrying(
        stop=tenacity.stop_after_attempt(ATTEMPTS),
        wait=tenacity.wait_random_exponential(multiplier=0.1, max=LONGEST_WAIT),
        retry=tenacity.retry_if_exception(lambda error: _is_theirs(error) and not isinstance(error, _FINAL)),
        reraise=True,
    )
    with reaching(path):
        return attempts(action)


def _is_theirs(error: BaseException) -> bool:
    """Whether an error came from the store; those of the local disk name a file, or say that it is full."""
    if isinstance(error, OSError):
        return error.filename is None and error.errno not in DISK_FULL
    return type(error).__module__.startswith(_THEIR_MODULES)
