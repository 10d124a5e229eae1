"""What limits ten, a hundred and a thousand nodes: measured here where it can be, else simulated or reckoned.

Run: python benchmarks/scale.py, as root on Linux for the part between machines
"""

import argparse
import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

from generated import make_shards
from measure import RESULTS, publish_result
from scale_head import package_bytes, polls
from scale_network import forecast, measured
from scale_rank_zero import checkpoint, evaluation, trained
from scale_reading import SHARD_BYTES, reading
from scale_requests import requests

NODES, CACHES, EPOCHS = (10, 100, 1000), (8, 16, 32), 3
PREFIX_REQUESTS = 5500
"""GET requests a second that Amazon's S3 answers at least, of each prefix of names."""
NETWORKS = {"yolov4": 80, "yolov3-tiny": 3}
"""Classes of each."""
IMAGES_PER_SECOND = 10.39
"""That a node of one core trains: yolov3-tiny at 416 px and bfloat16, by `training_step.py` on 2026-11-25."""
LATENCY = 1e-4
"""Seconds from a node to the next, taken for the forecast; a cluster's own is what `ping` says, halved."""


def all_reduce() -> dict[str, Any]:
    """Seconds of the gradients, on paper and between machines."""
    return {"forecast": forecast(LATENCY), "between_machines": measured()}


def checkpoints() -> dict[str, Any]:
    """A checkpoint of a large and of a small network on a local disk."""
    with tempfile.TemporaryDirectory() as folder:
        shards = make_shards(Path(folder), images=16)
        return {name: checkpoint(trained(name, classes, shards)[1]) for name, classes in NETWORKS.items()}


def store() -> dict[str, Any]:
    """Requests to an object store, of a small network's run."""
    with tempfile.TemporaryDirectory() as folder:
        return requests(*trained("yolov3-tiny", NETWORKS["yolov3-tiny"], make_shards(Path(folder), images=16)))


def head() -> dict[str, Any]:
    """What the head does for each node."""
    return polls() | {"package_bytes": package_bytes()}


PARTS: dict[str, Callable[[], Any]] = {
    "reading": lambda: reading(NODES, CACHES, EPOCHS),
    "all_reduce": all_reduce,
    "evaluation": evaluation,
    "checkpoints": checkpoints,
    "requests": store,
    "head": head,
}


def first_epoch(row: dict[str, Any], requests_a_shard: int, images_per_second: float) -> dict[str, Any]:
    """What all nodes ask of the store in their first epoch, and how fast where none shall wait for it.

    Args:
        row: of `reading`.
        requests_a_shard: that a download takes.
        images_per_second: that a node trains.
    """
    downloads = next(iter(row["downloads_of_a_node"].values()))[0]
    seconds = row["images"] / (images_per_second * row["nodes"])
    requests, size = downloads * requests_a_shard * row["nodes"], downloads * SHARD_BYTES
    return {
        "images": row["images"],
        "nodes": row["nodes"],
        "seconds_of_the_epoch": round(seconds, 1),
        "terabytes": round(size * row["nodes"] / 1e12, 2),
        "gigabits_a_second_of_a_node": round(size * 8 / seconds / 1e9, 2),
        "gigabits_a_second_of_the_store": round(size * row["nodes"] * 8 / seconds / 1e9, 1),
        "requests": requests,
        "requests_a_second": round(requests / seconds, 1),
        "seconds_at_the_limit_of_a_prefix": round(requests / PREFIX_REQUESTS, 1),
    }


def with_demand(content: dict[str, Any]) -> dict[str, Any]:
    """The same with what follows for the store, at the speed of a node with one core."""
    requests_a_shard = content["requests"]["download of a shard of 64 MiB"]
    rows = [first_epoch(row, requests_a_shard, IMAGES_PER_SECOND) for row in content["reading"]]
    return content | {"first_epoch": {"images_per_second_of_a_node": IMAGES_PER_SECOND, "rows": rows}}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", action="append", choices=PARTS, help="measure this part again; may be repeated")
    chosen = parser.parse_args().only or list(PARTS)
    path = RESULTS / "scale.json"
    before = json.loads(path.read_text()) if path.exists() else {}
    parts: dict[str, Any] = {name: PARTS[name]() if name in chosen else before[name] for name in PARTS}
    print(f"written: {publish_result('scale', {'command': 'python benchmarks/scale.py', **with_demand(parts)})}")


if __name__ == "__main__":
    main()
