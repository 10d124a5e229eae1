"""Temporary folders that do not outlive their process for long, however it ends."""

import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

PREFIX = ".yolo-dist-"
RANDOM_CHARACTERS = 8
"""Of a name that `tempfile` makes; what has other names is not ours."""
YOUNG = 60.0
"""Seconds in which a folder may not be locked yet by the process that made it."""


@contextmanager
def temporary_folder(parent: str | Path | None = None) -> Iterator[Path]:
    """A folder that goes at the end of the block.

    Those that killed processes left there go before: every process holds a lock on its own, which the system takes
    back when the process ends, also one in another container.

    Args:
        parent: where it is made; the system's temporary folder by default.
    """
    _remove_left(Path(parent or tempfile.gettempdir()))
    folder = Path(tempfile.mkdtemp(dir=parent, prefix=PREFIX))
    lock = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):  # a network's file system may know no locks; its folders then go with their block alone
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(lock)


def _remove_left(parent: Path) -> None:
    for folder in parent.glob(f"{PREFIX}{'?' * RANDOM_CHARACTERS}"):
        with suppress(OSError):  # of another user, or just removed by its own process
            if folder.is_dir() and time.time() - folder.stat().st_mtime > YOUNG and _is_left(folder):
                shutil.rmtree(folder)


def _is_left(folder: Path) -> bool:
    lock = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(lock)
    return True
