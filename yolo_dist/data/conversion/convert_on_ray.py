"""Shards written by tasks on a Ray cluster, which all see the dataset and the destination."""

from collections.abc import Iterator, Sequence
from typing import Any

import ray
from ray.exceptions import RayTaskError

from yolo_dist.data.conversion.index import Part
from yolo_dist.data.conversion.shard_writer import WrittenShard
from yolo_dist.data.conversion.staging import Staging
from yolo_dist.ray_cluster import join_cluster


def shards_on_ray(staging: Staging, parts: Sequence[Part], workers: int) -> Iterator[tuple[int, WrittenShard]]:
    """Write each part as a shard; gives number and result of each in the order in which they are finished.

    Args:
        staging: where they go.
        parts: what goes into them.
        workers: tasks at a time, one core each; no more of the index is sent out than they work on.

    Raises:
        Exception: what a task raised.
    """
    join_cluster({"CPU": 1}, workers, "--workers")
    running: dict[Any, int] = {}
    waiting = iter(enumerate(parts))
    try:
        while True:
            while len(running) < workers and (following := next(waiting, None)):
                number, part = following
                running[_write.remote(staging, number, part)] = number
            if not running:
                return
            finished, _ = ray.wait(list(running), num_returns=1)
            for task in finished:
                yield running.pop(task), _result(task)
    finally:
        for task in running:
            ray.cancel(task, force=True)


@ray.remote(num_cpus=1)
def _write(staging: Staging, number: int, part: Part) -> WrittenShard:
    return staging.shard(number, part)


def _result(task: Any) -> WrittenShard:
    try:
        written: WrittenShard = ray.get(task)
    except RayTaskError as error:
        raise error.cause from None
    return written
