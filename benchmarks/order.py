"""What planning an epoch of 100 million samples in 1.5 million shards costs each of 1 024 workers, on one core.

The whole permutation, which a worker without windows would need, stands beside it.

Run: python benchmarks/order.py
"""

import time
import tracemalloc
from collections.abc import Callable
from statistics import median
from typing import Any

import numpy as np
from measure import publish_result
from numpy.typing import NDArray

from yolo_dist.data.order import EpochOrder, share_of

SAMPLES, SHARDS, WORKERS, BATCH_SIZE = 100_000_000, 1_500_000, 1024, 16_384
STEPS = 200
SHARD_SIZES = np.random.default_rng(0).multinomial(SAMPLES, np.full(SHARDS, 1 / SHARDS))


def share(order: EpochOrder, step: int, rank: int) -> NDArray[np.int64]:
    """One worker's samples of a global batch."""
    batch = order.batch(step)
    return batch[share_of(len(batch), rank, WORKERS)]


def plan() -> EpochOrder:
    """An epoch up to its first batch."""
    order = EpochOrder(np.concatenate([[0], SHARD_SIZES.cumsum()]), BATCH_SIZE, seed=0, epoch=0)
    share(order, 0, rank=0)
    return order


def steps(order: EpochOrder) -> None:
    """One worker's share, and its mosaic partners, of some steps in the middle of the epoch."""
    for step in range(order.steps // 2, order.steps // 2 + STEPS):
        share(order, step, rank=WORKERS - 1)
        order.pool(step)


def whole() -> None:
    """The permutation of all samples at once."""
    np.random.default_rng(0).permutation(SAMPLES)


def cost(work: Callable[[], Any]) -> dict[str, float]:
    """Seconds of the processor (median of 3), and the most memory in MiB beyond that of before."""
    seconds = []
    for _ in range(3):
        start = time.process_time()
        work()
        seconds.append(time.process_time() - start)
    tracemalloc.start()
    work()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return {"seconds": round(median(seconds), 4), "mebibytes": round(peak / 2**20, 1)}


def main() -> None:
    order = plan()
    found = {
        "epoch up to its first batch": cost(plan),
        f"{STEPS} further steps": cost(lambda: steps(order)),
        "whole permutation": cost(whole),
    }
    for name, numbers in found.items():
        print(f"{name:28} {numbers['seconds']:8.3f} s {numbers['mebibytes']:8.1f} MiB")
    content = {"samples": SAMPLES, "shards": SHARDS, "workers": WORKERS, "batch_size": BATCH_SIZE, **found}
    path = publish_result("order", {"command": "python benchmarks/order.py", **content})
    print(f"written: {path}")


if __name__ == "__main__":
    main()
