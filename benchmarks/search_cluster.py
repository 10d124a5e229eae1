"""Scheduling alone: trials whose only stage sleeps, on a cluster of several Ray nodes on this machine.

Each trial's work is a Ray task of one logical core. Utilisation is the time all tasks slept, divided by logical cores
and the time from the first begin to the last end. The gap is how long a core stands idle between two trials, with all
that a trial, its process and the search do meanwhile.

Run: python benchmarks/search_cluster.py
"""

import argparse
import json
import os
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

import ray
import yaml
from measure import publish_result
from ray.cluster_utils import Cluster

from yolo_dist.config import validate
from yolo_dist.data.card import find_card
from yolo_dist.data.conversion.convert import convert
from yolo_dist.recipe import Recipe
from yolo_dist.shipped import shipped_folder
from yolo_dist.stage_cache import StageResult
from yolo_dist.storage import location
from yolo_dist.tune.search import search
from yolo_dist.tune.space import Space


def sleeping(recipe: Recipe, _stages: Any) -> list[StageResult]:
    """A training that is all sleep, on a worker of its own; leaves when it began and ended."""

    def work(seconds: float) -> tuple[float, float]:
        began = time.time()
        time.sleep(seconds)
        return began, time.time()

    percent = recipe.stages[-1].percent  # type: ignore[union-attr]
    times = ray.get(ray.remote(num_cpus=1, scheduling_strategy="DEFAULT")(work).remote(recipe.seed))
    place = Path(recipe.storage) / recipe.name / "slept.json"
    place.write_text(json.dumps(times))
    slept = times[1] - times[0]
    return [StageResult("pruned", "prune", 0.5, 1 - percent, int(1e6 * (1 - percent)), 5, 4, 3.0, slept, False)]


def gaps(times: Sequence[tuple[float, float]], cores: int) -> list[float]:
    """Seconds between the end of a trial and the begin of the next on its core.

    Args:
        times: when each trial began and ended, in seconds.
        cores: trials at a time. Those after the first so many begin where the earliest ended.
    """
    begins, ends = (sorted(moments) for moments in zip(*times, strict=True))
    return [begin - end for begin, end in zip(begins[cores:], ends, strict=False)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=200)
    parser.add_argument("--nodes", type=int, default=4)
    parser.add_argument("--cores", type=int, default=4, help="logical cores a node")
    parser.add_argument("--seconds", type=int, default=60, help="that a trial sleeps")
    options = parser.parse_args()
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": options.cores})
    for _ in range(options.nodes - 1):
        cluster.add_node(num_cpus=options.cores)
    os.environ["RAY_ADDRESS"] = cluster.address
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        for split in ("train", "val"):
            convert(find_card("shapes"), "-", location(folder / "shapes"), split)
        recipe = yaml.safe_load((shipped_folder("launch") / "shapes.yaml").read_text())
        recipe |= {"stages": [{"id": "pruned", "kind": "prune"}], "seed": options.seconds, "cluster": {"workers": 1}}
        (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe | {"shards": str(folder / "shapes")}))
        values = {
            "name": "sleeping",
            "recipe": str(folder / "recipe.yaml"),
            "space": {"pruned.percent": {"uniform": [0.1, 0.9]}},
            "objectives": {"map50": "maximise", "parameters": "minimise"},
            "searcher": "random",
            "trials": options.trials,
            "storage": str(folder),
        }
        began = time.monotonic()
        search(validate(Space, values, "benchmark"), run=sleeping)
        elapsed = time.monotonic() - began
        times = [json.loads(path.read_text()) for path in folder.glob("sleeping/trials/*/slept.json")]
    slept = [end - begin for begin, end in times]
    span = max(end for _, end in times) - min(begin for begin, _ in times)
    cores = options.nodes * options.cores
    found = {
        "trials": len(times),
        "logical_cores": cores,
        "seconds_a_trial": options.seconds,
        "utilisation": round(sum(slept) / (cores * span), 3),
        "seconds_between_trials": round(median(gaps(times, cores)), 3),
        "seconds": round(elapsed, 1),
    }
    print(found)
    print(publish_result("search_cluster", found))
    ray.shutdown()
    cluster.shutdown()


if __name__ == "__main__":
    main()
