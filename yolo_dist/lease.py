"""One process at a time writes a folder, wherever it is: a file in it says who, and that it lives.

A holder writes its file anew every few seconds. Who finds one watches it: if it changes, its holder lives; if it does
not for long enough, or its holder was a process of this machine that is no more, it is taken over. No two machines'
clocks are compared.
"""

import getpass
import json
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from uuid import uuid4

import psutil
from pydantic import Field, ValidationError
from upath import UPath

from yolo_dist.config import Config
from yolo_dist.errors import RunHeld, YoloDistError
from yolo_dist.object_store import persistently
from yolo_dist.storage import publish, publish_new

LEASE_FILE = "lease.json"
SECONDS_BETWEEN_SIGNS = 10.0
"""How often a holder gives a sign of life."""
DEAD_AFTER = 45.0
"""Seconds without a sign after which a holder counts as dead; an object store may be away for half a minute."""
SECONDS_BETWEEN_LOOKS = 1.0
SETTLES_IN = 2.0
"""Seconds in which one that took over at the same moment has written, too: the last one has it."""


def _submitted_as() -> str | None:
    """Id of the Ray job that this process runs for, if it does."""
    job = json.loads(os.environ.get("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}"))
    return (job.get("metadata") or {}).get("job_submission_id")


def _started(process: int) -> float | None:
    """When a process of this machine began; None where it is no more."""
    with suppress(psutil.Error):
        return psutil.Process(process).create_time()
    return None


class Holder(Config):
    """Who writes a folder."""

    user: str = Field(default_factory=lambda: os.environ.get("USER") or getpass.getuser())
    host: str = Field(default_factory=socket.gethostname)
    process: int = Field(default_factory=os.getpid)
    process_started: float | None = Field(default_factory=lambda: _started(os.getpid()))
    job: str | None = Field(default_factory=_submitted_as)
    since: str = Field(default_factory=lambda: time.strftime("%Y-%m-%d %H:%M:%S %z"))
    token: str = Field(default_factory=lambda: uuid4().hex)
    signs: int = 0
    """How often it said that it lives."""

    def __str__(self) -> str:
        job = f", job {self.job}" if self.job else ""
        return f"{self.user} on {self.host}, process {self.process}{job}, since {self.since}"

    @property
    def known_alive(self) -> bool | None:
        """Whether it lives, if it is of this machine; None for other machines'."""
        if self.host != socket.gethostname():
            return None
        return self.process_started is not None and _started(self.process) == self.process_started


class Lease:
    """A folder held by this process."""

    def __init__(self, folder: UPath, holder: Holder) -> None:
        self._file = folder / LEASE_FILE
        self._holder = holder
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._give_signs, name="lease", daemon=True)
        self._thread.start()

    def require(self) -> None:
        """Make sure that nobody has taken the folder over, as happens to a machine that was away too long.

        Raises:
            RunHeld: somebody has.
        """
        now = read_holder(self._file.parent)
        if now is not None and now.token != self._holder.token:
            raise _held(self._file.parent, now)

    def release(self) -> None:
        """Let others have it."""
        self._ended.set()
        self._thread.join()
        with suppress(OSError, YoloDistError):
            self.require()
            self._file.fs.rm_file(self._file.path)

    def _give_signs(self) -> None:
        while not self._ended.wait(SECONDS_BETWEEN_SIGNS):
            with suppress(Exception):  # the store may be away for a while
                self.require()
                self._holder = self._holder.model_copy(update={"signs": self._holder.signs + 1})
                publish(self._file, self._holder.model_dump_json())


@contextmanager
def hold(folder: UPath, say: Callable[[str], None]) -> Iterator[Lease]:
    """Have a folder for this process alone while the block lasts; `say` is told where that takes long.

    Raises:
        RunHeld: another process has it and lives; says who.
    """
    holder = Holder()
    while not _create(folder, holder):
        if (other := read_holder(folder)) is None:
            continue  # it has just been released
        if other.known_alive is None:
            say(f"{folder}: was written by {other}; looking up to {DEAD_AFTER:.0f} s whether it lives")
        if other.known_alive or (other.known_alive is None and _gives_signs(folder, other)):
            raise _held(folder, read_holder(folder) or other)
        _take_over(folder, other, holder)
        break
    lease = Lease(folder, holder)
    try:
        yield lease
    finally:
        lease.release()


def read_holder(folder: UPath) -> Holder | None:
    """Who has a folder, or had it when its machine was lost; None for nobody."""
    file = folder / LEASE_FILE
    try:
        content = persistently(file, lambda: file.fs.cat_file(file.path))
    except (FileNotFoundError, NotADirectoryError):
        return None
    try:
        return Holder.model_validate_json(content)
    except ValidationError:
        return Holder(user="somebody", host="", process=0, process_started=None, since="now", token=content.hex())


def _create(folder: UPath, holder: Holder) -> bool:
    """Write the file unless there is one: the file system sees to it that one of two writers fails."""
    try:
        publish_new(folder / LEASE_FILE, holder.model_dump_json().encode())
    except FileExistsError:
        now = read_holder(folder)  # its own, where an object store's answer was lost and the request sent again
        return now is not None and now.token == holder.token
    return True


def _gives_signs(folder: UPath, other: Holder) -> bool:
    """Watch until a holder gives a sign of life or releases the folder, or has been silent for too long."""
    silent_since = time.monotonic()
    while time.monotonic() - silent_since < DEAD_AFTER:
        time.sleep(SECONDS_BETWEEN_LOOKS)
        now = read_holder(folder)
        if now is None:
            return False
        if (now.token, now.signs) != (other.token, other.signs):
            return True
    return False


def _take_over(folder: UPath, other: Holder, holder: Holder) -> None:
    publish(folder / LEASE_FILE, holder.model_dump_json())
    time.sleep(0 if other.known_alive is False else SETTLES_IN)
    if (now := read_holder(folder)) is not None and now.token != holder.token:
        raise _held(folder, now)


def _held(folder: UPath, holder: Holder) -> RunHeld:
    return RunHeld(f"{folder}: is being written by {holder}; wait for it, stop it, or give this run another name")
