"""Being asked to end: a signal to the command reaches the workers, who end when their state is kept."""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Stop:
    """By which signal the workers are asked to end: 0 as long as they are not. For workers in this process."""

    def __init__(self) -> None:
        self.signal = 0

    def ask(self, number: int) -> None:
        """Ask them to end, because of this signal."""
        self.signal = number

    def asked(self) -> int:
        """What they were asked, so far as is known here."""
        return self.signal


class StopOnCluster(Stop):
    """The same for workers in other processes; travels to them. It never makes them wait for an answer."""

    def __init__(self) -> None:
        super().__init__()
        # on the node of the process that made it, with which it ends: no other lost node takes it away
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        self._board: Any = ray.remote(num_cpus=0, scheduling_strategy=here)(Stop).remote()  # type: ignore[call-overload]
        self._answer: Any = None

    def ask(self, number: int) -> None:
        """Ask them to end, because of this signal."""
        super().ask(number)
        self._board.ask.remote(number)

    def asked(self) -> int:
        """What they were asked, so far as is known here."""
        if self._answer is None:
            self._answer = self._board.asked.remote()
        elif ray.wait([self._answer], timeout=0)[0]:
            self.signal, self._answer = ray.get(self._answer), None
        return self.signal


@contextmanager
def hearing_signals(
    ask: Callable[[int], None], answer: str = "ending after this step, with a checkpoint"
) -> Iterator[None]:
    """Pass the first SIGINT or SIGTERM on; the second one does what it always did.

    Only a process's main thread hears signals: elsewhere nothing changes.

    Args:
        ask: is given the signal's number.
        answer: what whoever sent the first one is told.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) or signal.SIG_DFL for number in SIGNALS}

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    def hear(number: int, _frame: object) -> None:
        restore()
        name = signal.Signals(number).name
        # not through a stream, which may be in the middle of a line
        os.write(2, f"{name}: {answer}; once more ends it at once\n".encode())
        ask(number)

    for number in SIGNALS:
        signal.signal(number, hear)
    try:
        yield
    finally:
        restore()
