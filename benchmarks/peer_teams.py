"""Contestants in processes of their own, each of them held on one core with all that it starts."""

import multiprocessing
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from importlib.metadata import version
from multiprocessing.connection import Connection, Listener
from pathlib import Path
from typing import Any

import cv2
import psutil
import torch
from measure import Race, race

from yolo_dist.freed_memory import keep_freed_memory


@dataclass(frozen=True)
class Task:
    """What one process has to do.

    Attributes:
        folder: with the samples in every storage.
        mosaic: with mosaic and all default augmentation, or just the letterbox.
        rank: of this process.
        processes: how many share the samples.
        cores: numbers of those it may use.
        setting: of the contestant, such as the number of its worker processes.
        port: free on this machine, for contestants whose processes talk to each other.
    """

    folder: Path
    mosaic: bool
    rank: int
    processes: int
    cores: tuple[int, ...]
    setting: int
    port: int = 0


Epoch = Callable[[], int]
"""Makes all batches of an epoch once; returns how many images they hold."""


@dataclass(frozen=True)
class Contestant:
    """A way of loading.

    Attributes:
        prepare: makes a process ready.
        settings: that are tried, of which the fastest races.
        together: one process on all cores, which starts those it wants, instead of one process a core.
        python: the interpreter that has it.
    """

    prepare: Callable[[Task], Epoch]
    settings: tuple[int, ...] = (0,)
    together: bool = False
    python: Path = Path(sys.executable)


class Helper:
    """A process of its own that calls functions when told to.

    Args:
        python: its interpreter; pickling the functions asks for this one's version, but not for its packages.
    """

    def __init__(self, python: Path) -> None:
        self._connection, theirs = multiprocessing.Pipe()
        handle = theirs.fileno()
        self._process = subprocess.Popen([python, __file__, str(handle)], pass_fds=[handle])
        theirs.close()

    def order(self, function: Callable[..., Any], *arguments: object) -> None:
        """Have a function called; its module must be importable."""
        self._connection.send((function, arguments))

    def answer(self) -> Any:
        """What the function returned."""
        try:
            return self._connection.recv()
        except EOFError:
            raise SystemExit("a contestant failed; its message is above") from None

    def call(self, function: Callable[..., Any], *arguments: object) -> Any:
        """What a function returns there."""
        self.order(function, *arguments)
        return self.answer()

    def close(self) -> None:
        """End the process."""
        self._connection.close()
        self._process.wait()


class Team:
    """The processes of a contestant, ready to run epochs.

    Args:
        contestant: what they run.
        setting: with which setting.
        folder: with the samples.
        mosaic: see `Task`.
        processes: how many, and on how many cores.
    """

    def __init__(self, contestant: Contestant, setting: int, folder: Path, mosaic: bool, processes: int) -> None:
        cores = sorted(os.sched_getaffinity(0))[:processes]
        held = [tuple(cores)] if contestant.together else [(core,) for core in cores]
        port = _free_port()
        self.cpu_rates: list[float] = []
        self._helpers = [Helper(contestant.python) for _ in held]
        for rank, helper in enumerate(self._helpers):
            helper.order(
                _get_ready, contestant.prepare, Task(folder, mosaic, rank, len(held), held[rank], setting, port)
            )
        for helper in self._helpers:
            helper.answer()

    def epoch(self) -> int:
        """Images of one epoch of all processes."""
        for helper in self._helpers:
            helper.order(_run_epoch)
        answers = [helper.answer() for helper in self._helpers]
        images: int = sum(count for count, _ in answers)
        self.cpu_rates.append(images / sum(seconds for _, seconds in answers))
        return images

    def close(self) -> None:
        """End the processes."""
        for helper in self._helpers:
            helper.close()


def compete(
    contestants: Mapping[str, tuple[Contestant, int]], folder: Path, mosaic: bool, processes: int, rounds: int
) -> tuple[Race, Race]:
    """Epochs in turn; images a second, and images a second of CPU time.

    Args:
        contestants: with their settings.
        folder: with the samples.
        mosaic: see `Task`.
        processes: how many, and on how many cores.
        rounds: that count.
    """
    with ExitStack() as stack:
        teams = {}
        for name, (contestant, setting) in contestants.items():
            teams[name] = Team(contestant, setting, folder, mosaic, processes)
            stack.callback(teams[name].close)
        result = race({name: team.epoch for name, team in teams.items()}, rounds)
        return result, Race({name: team.cpu_rates[-rounds:] for name, team in teams.items()})


def versions(*packages: str) -> list[str]:
    """Packages with their versions in the interpreter that is asked."""
    return [f"{package} {version(package)}" for package in packages]


def _free_port() -> int:
    with Listener(("127.0.0.1", 0)) as listener:
        return int(listener.address[1])


_ready: list[Epoch] = []
"""Of a helper: what `_get_ready` prepared."""


def _get_ready(prepare: Callable[[Task], Epoch], task: Task) -> None:
    os.sched_setaffinity(0, task.cores)
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    keep_freed_memory()
    _ready.append(prepare(task))


def _run_epoch() -> tuple[int, float]:
    """Images of an epoch, and the seconds of CPU time that it took."""
    before = _cpu_seconds()
    return _ready[-1](), _cpu_seconds() - before


def _cpu_seconds() -> float:
    """Of this process and all that it started."""
    own = psutil.Process()
    return sum(sum(process.cpu_times()[:4]) for process in (own, *own.children(recursive=True)))


def _serve(connection: Connection) -> None:
    """Call what is ordered, until the other end closes."""
    while True:
        try:
            function, arguments = connection.recv()
        except EOFError:
            return
        connection.send(function(*arguments))


if __name__ == "__main__":
    _serve(Connection(int(sys.argv[1])))
