"""What tracking costs a training: seconds of `Tracker.log` and of the client's own processes beside seconds of steps.

Epochs of yolov3-tiny at 416 px, batch 16, so short (four steps) that everything weighs more than in earnest; sparse
training, so that the gauge and its histogram are logged too, and accuracies of 80 classes. Weights & Biases runs
offline: what it does online besides is uploading. Goal: at most a hundredth.

Run: python benchmarks/tracking.py
"""

import argparse
import os
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

import psutil
from generated import SIZE, make_network, make_shards
from measure import publish_result
from training import make_config
from upath import UPath

from yolo_dist.compress.sparsity import SparsityConfig
from yolo_dist.freed_memory import keep_freed_memory
from yolo_dist.train.loop import Trainer
from yolo_dist.train.tracking import TrackedStage, Tracker, TrackingConfig, WandbConfig
from yolo_dist.train.workers import use_threads

BATCH, IMAGES = 16, 64
CLASSES = {f"class {number}": {"map": 0.25, "map50": 0.5} for number in range(80)}
CONTESTANTS = {
    "metrics.jsonl": TrackingConfig(),
    "and TensorBoard": TrackingConfig(tensorboard=True),
    "and Weights & Biases": TrackingConfig(tensorboard=True, wandb=WandbConfig()),
}


def cost(trainer: Trainer, config: TrackingConfig, folder: Path, epochs: int) -> dict[str, float]:
    """Shares of training time: of logging in the training's own thread, and of processor time of other processes."""
    stage = TrackedStage(UPath(folder / "metrics.jsonl"), "benchmark", "base")
    opening = time.perf_counter()
    logging: list[float] = []
    with Tracker(stage, config) as tracker:
        began = time.perf_counter()
        before = children_seconds()
        for number in range(epochs):
            summary = trainer.run_epoch()
            line: dict[str, Any] = {"epoch": number + 1, "epochs": epochs, **vars(summary), "gauge": trainer.gauge()}
            line |= {"seconds": 0.0, "seconds_left": 0.0, "map": 0.25, "map50": 0.5, "per_class": CLASSES}
            started = time.perf_counter()
            tracker.log(line)
            logging.append(time.perf_counter() - started)
        trained = time.perf_counter() - began
        others = children_seconds() - before
    whole = time.perf_counter() - opening
    return {
        "log_milliseconds": round(median(logging) * 1e3, 2),
        "log_share": round(median(logging) / (trained / epochs), 5),
        "other_processes_share": round(others / trained, 5),
        "seconds_to_start_and_end": round(whole - trained, 2),
    }


def children_seconds() -> float:
    """Processor time of this process's children."""
    times = [child.cpu_times() for child in psutil.Process().children(recursive=True)]
    return sum(one.user + one.system for one in times)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--no-result", action="store_true", help="print only, for a try")
    arguments = parser.parse_args()
    use_threads(1)
    keep_freed_memory()
    found = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for variable in ("WANDB_DATA_DIR", "WANDB_CACHE_DIR", "WANDB_CONFIG_DIR"):
            os.environ[variable] = str(folder / "home")
        shards = make_shards(folder / "scenes", IMAGES)
        config = make_config(batch=BATCH).model_copy(update={"sparsity": SparsityConfig(factor=1e-4)})
        trainer = Trainer(make_network(), shards, config, SIZE)
        for title, tracking in CONTESTANTS.items():
            found[title] = cost(trainer, tracking, folder / title.replace(" ", "-"), arguments.epochs)
            print(f"{title}: {found[title]}")
    if not arguments.no_result:
        print(f"written to {publish_result('tracking', {'epoch': 'four steps of batch 16', 'cost': found})}")


if __name__ == "__main__":
    main()
