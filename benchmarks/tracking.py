"""What tracking costs a training: seconds of `Tracker.log` and of the client's own processes beside seconds of steps.

Epochs of yolov3-tiny at 416 px, batch 16, so short (four steps) that everything weighs more than in earnest; sparse
training, so that the gauge and its histogram are logged too, and accuracies of 80 classes. Weights & Biases run
offline, and online with a server in this process, whose work is counted too: one that takes everything, one that goes
away after half of the epochs, and one that is not there at all. Goal: at most a hundredth.

Run: python benchmarks/tracking.py
"""

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

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

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
from wandb_server import KEY, WandbServer, wandb_server

BATCH, IMAGES = 16, 64
CLASSES = {f"class {number}": {"map": 0.25, "map50": 0.5} for number in range(80)}
ONLINE = TrackingConfig(tensorboard=True, wandb=WandbConfig(mode="online"))


class Contestant(NamedTuple):
    """Trackers, and the share of the epochs after which the server goes away."""

    config: TrackingConfig
    server_stays: float = 1.0


CONTESTANTS = {
    "metrics.jsonl": Contestant(TrackingConfig()),
    "and TensorBoard": Contestant(TrackingConfig(tensorboard=True)),
    "and Weights & Biases": Contestant(TrackingConfig(tensorboard=True, wandb=WandbConfig())),
    "online": Contestant(ONLINE),
    "online, server goes away": Contestant(ONLINE, server_stays=0.5),
    "online, no server": Contestant(ONLINE, server_stays=0.0),
}


def cost(trainer: Trainer, contestant: Contestant, folder: Path, epochs: int, server: WandbServer) -> dict[str, float]:
    """Shares of training time: of logging in the training's own thread, and of processor time of other processes."""
    stage = TrackedStage(UPath(folder / "metrics.jsonl"), "benchmark", "base")
    last = round(contestant.server_stays * epochs)
    if last == 0:
        server.go_away()
    opening = time.perf_counter()
    logging: list[float] = []
    with Tracker(stage, contestant.config) as tracker:
        began = time.perf_counter()
        before = children_seconds()
        for number in range(epochs):
            summary = trainer.run_epoch()
            line: dict[str, Any] = {"epoch": number + 1, "epochs": epochs, **vars(summary), "gauge": trainer.gauge()}
            line |= {"seconds": 0.0, "seconds_left": 0.0, "map": 0.25, "map50": 0.5, "per_class": CLASSES}
            started = time.perf_counter()
            tracker.log(line)
            logging.append(time.perf_counter() - started)
            if number + 1 == last < epochs:
                server.go_away()
        trained = time.perf_counter() - began
        others = children_seconds() - before
        closing = time.perf_counter()
    closed = time.perf_counter()
    return {
        "log_milliseconds": round(median(logging) * 1e3, 2),
        "longest_log_milliseconds": round(max(logging) * 1e3, 2),
        "log_share": round(median(logging) / (trained / epochs), 5),
        "other_processes_share": round(others / trained, 5),
        "seconds_to_start": round(began - opening, 2),
        "seconds_to_end": round(closed - closing, 2),
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
        os.environ["WANDB_API_KEY"] = KEY
        shards = make_shards(folder / "scenes", IMAGES)
        config = make_config(batch=BATCH).model_copy(update={"sparsity": SparsityConfig(factor=1e-4)})
        trainer = Trainer(make_network(), shards, config, SIZE)
        for title, contestant in CONTESTANTS.items():
            with wandb_server() as server:
                os.environ["WANDB_BASE_URL"] = server.url
                found[title] = cost(trainer, contestant, folder / title.replace(" ", "-"), arguments.epochs, server)
            print(f"{title}: {found[title]}")
    if not arguments.no_result:
        print(f"written to {publish_result('tracking', {'epoch': 'four steps of batch 16', 'cost': found})}")


if __name__ == "__main__":
    main()
