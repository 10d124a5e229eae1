"""Shards written by tasks on a Ray cluster, which all see the dataset and the destination."""

from collections.abc import Iterator, Sequence

from yolo_dist.data.conversion.index import Part
from yolo_dist.data.conversion.shard_writer import WrittenShard
from yolo_dist.data.conversion.staging import Staging
from yolo_dist.ray_tasks import run_tasks


def shards_on_ray(staging: Staging, parts: Sequence[Part], workers: int) -> Iterator[tuple[int, WrittenShard]]:
    """Write each part as a shard; gives number and result of each in the order in which they are finished.

    Args:
        staging: where they go.
        parts: what goes into them.
        workers: tasks at a time, one core each; no more of the index is sent out than they work on.

    Raises:
        Exception: what a task raised.
    """
    return run_tasks(_write, staging, list(enumerate(parts)), workers, "--workers")


def _write(staging: Staging, numbered: tuple[int, Part]) -> WrittenShard:
    return staging.shard(*numbered)
