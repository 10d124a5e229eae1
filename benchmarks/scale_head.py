"""What the head of a cluster does for its nodes: it asks all workers how they are, and sends each a job's package."""

import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

import ray

from yolo_dist.submission.packing import pack

ACTORS, CALLS, ROUNDS = 16, 1000, 5
POLL_SECONDS = 2.0
"""RAY_TRAIN_HEALTH_CHECK_INTERVAL_S, how often the controller asks every worker, as Ray has it."""


class Worker:
    """Answers as a worker does whose training has nothing new."""

    def poll_status(self) -> dict[str, Any]:
        """How it goes."""
        return {"running": True, "error": None, "training_report": None}


def polls() -> dict[str, Any]:
    """Seconds in which one process gets the answers of so many workers."""
    ray.init(num_cpus=ACTORS, include_dashboard=False, log_to_driver=False)
    actor = ray.remote(num_cpus=0)(Worker)
    workers: list[Any] = [actor.remote() for _ in range(ACTORS)]
    ray.get([worker.poll_status.remote() for worker in workers])
    seconds = []
    for _ in range(ROUNDS):
        began = time.perf_counter()
        ray.get([workers[number % ACTORS].poll_status.remote() for number in range(CALLS)])
        seconds.append(time.perf_counter() - began)
    ray.shutdown()
    found = median(seconds)
    print(f"{CALLS} calls of {ACTORS} actors: {found:.3f} s")
    return {
        "actors": ACTORS,
        "calls": CALLS,
        "seconds": round(found, 3),
        "calls_a_second": round(CALLS / found),
        "share_of_a_poll_interval": round(found / POLL_SECONDS, 3),
    }


def package_bytes() -> int:
    """Bytes of this repository's working directory as it travels to every node of a job."""
    package = pack(Path(__file__).resolve().parents[1])
    with tempfile.TemporaryDirectory() as folder:
        package.write(Path(folder) / "package.zip")
        return (Path(folder) / "package.zip").stat().st_size
