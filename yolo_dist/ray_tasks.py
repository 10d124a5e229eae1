"""Many calls of one function as Ray tasks, a bounded number at a time."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import ray
from ray.exceptions import RayError, RayTaskError

from yolo_dist.errors import MachineFailed
from yolo_dist.ray_cluster import join_cluster

ENDS_WITHIN = 30.0
"""Seconds after which a task that was cancelled is no longer waited for: its machine may be gone."""

Shared = TypeVar("Shared")
Item = TypeVar("Item")
Result = TypeVar("Result")


def run_tasks(
    function: Callable[[Shared, Item], Result], shared: Shared, items: Sequence[Item], workers: int, option: str
) -> Iterator[tuple[int, Result]]:
    """Call `function(shared, item)` for each item; gives number and result of each in the order in which they finish.

    Args:
        function: of a module that every worker can import.
        shared: what all calls need; travels once.
        items: travel one by one, when it is their turn.
        workers: calls at a time, one core each.
        option: where their number is set, for messages.

    Raises:
        ConfigError: this machine has fewer cores.
        MachineFailed: a worker was lost.
        Exception: what a call raised.
    """
    join_cluster({"CPU": 1}, workers, option)
    # where there is room: inside a trial of a search the default would be the room of the trial's own process
    call = ray.remote(num_cpus=1, scheduling_strategy="DEFAULT")(function)
    reference = ray.put(shared)
    running: dict[Any, int] = {}
    waiting = iter(enumerate(items))
    try:
        while True:
            while len(running) < workers and (following := next(waiting, None)):
                number, item = following
                running[call.remote(reference, item)] = number
            if not running:
                return
            finished, _ = ray.wait(list(running), num_returns=1)
            for task in finished:
                yield running.pop(task), _result(task)
    finally:
        for task in running:
            ray.cancel(task, force=True)
        if running:  # what they write must not come after what is done next
            ray.wait(list(running), num_returns=len(running), timeout=ENDS_WITHIN)


def _result(task: Any) -> Any:
    try:
        return ray.get(task)
    except RayTaskError as error:
        raise error.cause from None
    except RayError as error:
        reason = str(error).partition("\n")[0]
        raise MachineFailed(
            f"a worker was lost: {type(error).__name__}: {reason}; give it more memory, or have fewer at a time"
        ) from None
