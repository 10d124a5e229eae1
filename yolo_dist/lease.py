"""One process at a time writes a folder, wherever it is: a file in it says who, and that it lives.

Holders are numbered: `lease-1.json`, `lease-2.json`, …; the highest number has the folder. A number can be created only
once, on a disk and in an object store alike, so of several who want the next one gets it. A holder writes its file anew
every few seconds. Who finds one watches it: if it changes, its holder lives; if it does not for long enough, or its
holder was a process of this machine that is no more, the next number is free. No two machines' clocks are compared.
"""

import getpass
import json
import os
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import psutil
from pydantic import Field, ValidationError
from upath import UPath

from yolo_dist.config import Config
from yolo_dist.errors import RunHeld, YoloDistError
from yolo_dist.object_store import persistently
from yolo_dist.storage import create, publish, remove

LEASE_FILE = re.compile(r"lease-(\d+)\.json")
SECONDS_BETWEEN_SIGNS = 10.0
"""How often a holder gives a sign of life."""
DEAD_AFTER = 45.0
"""Seconds without a sign after which a holder counts as dead; an object store may be away for half a minute."""
SECONDS_BETWEEN_LOOKS, LONGEST_BETWEEN_LOOKS = 1.0, 10.0
"""Who waits long looks less often: each look is some requests to the store, and a thousand trials may wait."""


def _submitted_as() -> str | None:
    """Id of the Ray job that this process runs for, if it does."""
    job = json.loads(os.environ.get("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}"))
    return (job.get("metadata") or {}).get("job_submission_id")


def _started(process: int) -> float | None:
    """Seconds from this machine's start to that of a process, which no clock that is set changes; None where it is no
    more."""
    with suppress(psutil.Error):
        return round(psutil.Process(process).create_time() - psutil.boot_time(), 2)
    return None


def _machine() -> str:
    """What tells those from each other whose processes this one does not see: machines, where Linux runs since they
    started, and containers of one machine; their names may be the same."""
    try:
        return f"{Path('/proc/sys/kernel/random/boot_id').read_text().strip()} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return socket.gethostname()


def _user() -> str:
    try:
        return os.environ.get("USER") or getpass.getuser()
    except (KeyError, OSError):  # containers run as numbers that have no name
        return str(os.getuid())


class Holder(Config):
    """Who writes a folder."""

    user: str = Field(default_factory=_user)
    host: str = Field(default_factory=socket.gethostname)
    machine: str = Field(default_factory=_machine)
    process: int = Field(default_factory=os.getpid)
    process_started: float | None = Field(default_factory=lambda: _started(os.getpid()))
    job: str | None = Field(default_factory=_submitted_as)
    since: str = Field(default_factory=lambda: time.strftime("%Y-%m-%d %H:%M:%S %z"))
    token: str = Field(default_factory=lambda: uuid4().hex)
    signs: int = 0
    """How often it said that it lives."""
    released: bool = False
    """Whether it has let go."""

    def __str__(self) -> str:
        job = f", job {self.job}" if self.job else ""
        return f"{self.user} on {self.host}, process {self.process}{job}, since {self.since}"

    @property
    def known_alive(self) -> bool | None:
        """Whether it lives, if it is of this machine; None for other machines' and containers'."""
        if (self.host, self.machine) != (socket.gethostname(), _machine()):
            return None
        return self.process_started is not None and _started(self.process) == self.process_started


class Lease:
    """A folder held by this process, under a number."""

    def __init__(self, folder: UPath, number: int, holder: Holder) -> None:
        self._folder = folder
        self._number = number
        self._holder = holder
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._give_signs, name="lease", daemon=True)
        self._thread.start()

    def require(self) -> None:
        """Make sure that nobody has taken the folder over, as happens to a machine that was away too long.

        Raises:
            RunHeld: somebody has.
        """
        number, now = _newest(self._folder)
        if number > self._number:
            raise _held(self._folder, now)

    @property
    def lost(self) -> bool:
        """Whether somebody has taken the folder over."""
        return _newest(self._folder)[0] > self._number

    def remove_folder(self) -> None:
        """Delete the folder with all that is in it, last of all what says who has it."""
        self._ended.set()
        self._thread.join()
        for path in self._folder.iterdir():
            if not LEASE_FILE.fullmatch(path.name):
                remove(path)
        remove(self._folder)

    def release(self) -> None:
        """Let others have it, if it is still there."""
        if self._ended.is_set():
            return
        self._ended.set()
        self._thread.join()
        with suppress(OSError, YoloDistError):
            self._write(released=True)
            for number in _numbers(self._folder):
                if number < self._number:
                    self._folder.fs.rm_file(_file(self._folder, number).path)

    def _give_signs(self) -> None:
        while not self._ended.wait(SECONDS_BETWEEN_SIGNS):
            with suppress(Exception):  # the store may be away for a while
                self.require()
                self._write(signs=self._holder.signs + 1)

    def _write(self, **changes: Any) -> None:
        self._holder = self._holder.model_copy(update=changes)
        publish(_file(self._folder, self._number), self._holder.model_dump_json())


@contextmanager
def hold(folder: UPath, say: Callable[[str], None]) -> Iterator[Lease]:
    """Have a folder for this process alone while the block lasts; `say` is told where that takes long.

    Raises:
        RunHeld: another process has it and lives; says who.
    """
    candidate = _Candidate(folder)
    first: Holder | None = None
    while (lease := candidate.attempt()) is None:
        if (other := candidate.other) is None:
            continue  # somebody else was quicker, or let go at this moment
        if other.known_alive or (first is not None and (first.token, first.signs) != (other.token, other.signs)):
            raise _held(folder, other)
        if first is None:
            say(f"{folder}: was written by {other}; looking up to {DEAD_AFTER:.0f} s whether it lives")
        first = other
        time.sleep(SECONDS_BETWEEN_LOOKS)
    try:
        yield lease
    finally:
        lease.release()


@contextmanager
def hold_unless_done(folder: UPath, done: Callable[[], bool]) -> Iterator[Lease | None]:
    """Have a folder for this process alone while the block lasts, unless somebody else finishes what it is for.

    Waits for either; who dies while having the folder is followed by one of those who wait.

    Args:
        folder: to have.
        done: whether what is done there is finished.

    Yields:
        The lease if it is ours to do; None if it is done.
    """
    candidate, began = _Candidate(folder), time.monotonic()
    while not done():
        if (lease := candidate.attempt()) is not None:
            try:
                yield None if done() else lease  # the last holder may have finished since we looked
            finally:
                lease.release()
            return
        time.sleep(_pause(time.monotonic() - began))
    yield None


def _pause(waited: float) -> float:
    """Seconds until the next look of who has waited so long: a tenth of that, within bounds."""
    return min(max(SECONDS_BETWEEN_LOOKS, waited / 10), LONGEST_BETWEEN_LOOKS)


def read_holder(folder: UPath) -> Holder | None:
    """Who has a folder, or had it when its machine was lost; None for nobody."""
    _, holder = _newest(folder)
    return holder


def last_sign(folder: UPath) -> float | None:
    """When who has a folder, or had it last, gave a sign of life, in seconds since 1970; None if nobody ever had it."""
    if (number := max(_numbers(folder), default=0)) == 0:
        return None
    file = _file(folder, number)
    modified: datetime = persistently(file, lambda: file.fs.modified(file.path))
    return modified.timestamp()


class _Candidate:
    """Somebody who wants a folder and watches who has it.

    Attributes:
        other: who had it at the last attempt; None if nobody did.
    """

    def __init__(self, folder: UPath) -> None:
        self._folder = folder
        self._silent_since = 0.0
        self.other: Holder | None = None

    def attempt(self) -> Lease | None:
        """The folder, unless somebody has it who may be alive."""
        before, (number, self.other) = self.other, _newest(self._folder)
        if self.other is not None and not self._is_dead(self.other, before):
            return None
        holder, number = Holder(), number + 1
        first = create(_file(self._folder, number), holder.model_dump_json())
        if not first or _newest(self._folder)[0] > number:  # numbers below the newest go, and could be created again
            self.other = None
            return None
        return Lease(self._folder, number, holder)

    def _is_dead(self, other: Holder, before: Holder | None) -> bool:
        if (alive := other.known_alive) is not None:
            return not alive
        if other != before:
            self._silent_since = time.monotonic()
        return time.monotonic() - self._silent_since >= DEAD_AFTER


def _newest(folder: UPath) -> tuple[int, Holder | None]:
    """The highest number, and who has the folder under it if anybody does."""
    number = max(_numbers(folder), default=0)
    file = _file(folder, number)
    try:
        content = persistently(file, lambda: file.fs.cat_file(file.path))
    except (FileNotFoundError, NotADirectoryError):
        return number, None
    try:
        holder = Holder.model_validate_json(content)
    except ValidationError:
        holder = Holder(user="somebody", host="", process=0, process_started=None, since="now", token=content.hex())
    return number, None if holder.released else holder


def _numbers(folder: UPath) -> list[int]:
    folder.fs.invalidate_cache(folder.path)
    try:
        names = persistently(folder, lambda: folder.fs.ls(folder.path, detail=False))
    except (FileNotFoundError, NotADirectoryError):
        return []
    found = (LEASE_FILE.fullmatch(name.rpartition("/")[2]) for name in names)
    return [int(match[1]) for match in found if match]


def _file(folder: UPath, number: int) -> UPath:
    return folder / f"lease-{number}.json"


def _held(folder: UPath, holder: Holder | None) -> RunHeld:
    who = holder or "another process"
    return RunHeld(f"{folder}: is being written by {who}; wait for it, stop it, or give this run another name")
