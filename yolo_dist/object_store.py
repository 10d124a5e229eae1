"""Object stores: where they are, what goes wrong with them, and trying again."""

import errno
import math
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import fsspec
import tenacity
from pydantic import Field
from upath import UPath

from yolo_dist.config import Config
from yolo_dist.errors import StorageError

ATTEMPTS = 5
LONGEST_WAIT = 10.0
"""Seconds between two attempts."""
TIMEOUT_VARIABLE, DEFAULT_TIMEOUT = "YOLO_DIST_STORE_TIMEOUT", 15.0

_FINAL = (FileNotFoundError, FileExistsError, PermissionError, IsADirectoryError, NotADirectoryError)
DISK_FULL = (errno.ENOSPC, errno.EDQUOT)
_THEIR_MODULES = ("botocore", "aiobotocore", "aiohttp", "asyncio", "fsspec")

T = TypeVar("T")

for _protocol in ("s3", "s3a"):
    fsspec.register_implementation(_protocol, "yolo_dist.s3.PatientS3", clobber=True)  # imported when it is first used


class ObjectStoreConfig(Config):
    """Where `s3://` URLs lead. Keys are never in a recipe: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY."""

    endpoint: str | None = None
    """URL of another store than Amazon's; AWS_ENDPOINT_URL by default."""
    region: str | None = None
    """AWS_REGION by default."""
    timeout: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    """Seconds after which a request that gets no further counts as failed; YOLO_DIST_STORE_TIMEOUT by default."""

    def apply(self) -> None:
        """Set this process's variables, which the workers it starts get too."""
        variables = (("AWS_ENDPOINT_URL", self.endpoint), ("AWS_REGION", self.region), (TIMEOUT_VARIABLE, self.timeout))
        for name, value in variables:
            if value is not None:
                os.environ[name] = str(value)


def store_timeout() -> float:
    """Seconds after which a request that gets no further counts as failed.

    Raises:
        StorageError: YOLO_DIST_STORE_TIMEOUT is no such number.
    """
    text = os.environ.get(TIMEOUT_VARIABLE, str(DEFAULT_TIMEOUT))
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 < seconds < math.inf:
        raise StorageError(f"{TIMEOUT_VARIABLE} is {text!r}, not a number of seconds above 0")
    return seconds


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
        if _is_timeout(error):
            raise StorageError(
                f"{path}: cannot be used: the store stalls, nothing came of a request for {store_timeout():g} s; look "
                f"after the store and the way to it, or set {TIMEOUT_VARIABLE} to more seconds"
            ) from error
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


def _is_timeout(error: Exception) -> bool:
    """Whether a store was silent for too long, by the names that all of its libraries give to it."""
    return "Timeout" in type(error).__name__
