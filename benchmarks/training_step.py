"""Where the time of a training step goes, and what a second worker is worth.

yolov3-tiny at 416 px, batch 16, one computing thread a worker and one that decodes ahead, sparse training, mosaic.
Phases are timed from outside: the functions that a step calls are wrapped with a clock. Twice, by the clock on the wall
and by the processor time of the computing thread: other programs cost only the first, waiting costs nothing in the
second. Goals: outside the network's forward and backward pass at most a tenth, two workers on two cores at least 1.6
times one, with the default `nominal_batch`, which exchanges gradients after every fourth batch. Beside it stands what
an exchange after every batch costs, and what the machine itself allows: two trainings of a worker's share each, which
know nothing of each other.

Run: python benchmarks/training_step.py
"""

import argparse
import multiprocessing
import os
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from typing import Any

os.environ["RAY_TRAIN_ENABLE_PRINT_PATCH"] = "0"

import ray
import torch
from generated import SIZE, make_network, make_shards
from measure import publish_result
from training import epoch_seconds, make_config
from upath import UPath

from yolo_dist.bundle import Bundle
from yolo_dist.compress.sparsity import SparsityConfig
from yolo_dist.data.augment import AugmentConfig
from yolo_dist.data.loader import Batch
from yolo_dist.data.scenes import CLASSES
from yolo_dist.data.shards import ShardSet
from yolo_dist.freed_memory import keep_freed_memory
from yolo_dist.train import loop
from yolo_dist.train.cluster import ClusterConfig
from yolo_dist.train.config import TrainConfig
from yolo_dist.train.loop import Trainer
from yolo_dist.train.loss import DetectionLoss
from yolo_dist.train.precision import bfloat16_is_fast
from yolo_dist.train.sparse import SparseTraining
from yolo_dist.train.workers import use_threads

BATCH, IMAGES = 16, 64
DEFAULT_NOMINAL = TrainConfig().nominal_batch
ONE, TWO = "one worker", "two workers"
TWO_EVERY_BATCH = "two workers, gradients exchanged after every batch"
APART = "two separate trainings"
NETWORK = ("forward", "backward")
STEP = "whole step"


class Phases:
    """Clocks around functions: seconds a step on the wall, and of this thread's processor time, by phase."""

    def __init__(self) -> None:
        self.steps: list[dict[str, list[float]]] = []
        self.now: dict[str, list[float]] = defaultdict(lambda: [0.0, 0.0])

    def around(self, phase: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function, timed as a phase."""

        def timed(*args: Any, **kwargs: Any) -> Any:
            wall, own = time.perf_counter(), time.thread_time()
            try:
                return function(*args, **kwargs)
            finally:
                spent = self.now[phase]
                spent[0] += time.perf_counter() - wall
                spent[1] += time.thread_time() - own

        return timed

    def step_ends(self) -> None:
        """What follows belongs to the next step."""
        self.steps.append(dict(self.now))
        self.now.clear()

    def table(self, clock: int, warm_up: int) -> dict[str, float]:
        """Median seconds a step by phase; `rest` is what no clock was around."""
        counted = self.steps[warm_up:]
        names = [name for name in counted[0] if name != STEP]
        phases = {name: median(step[name][clock] for step in counted) for name in names}
        rest = median(
            step[STEP][clock] - sum(step[name][clock] for name in names if name != "waiting for data")
            for step in counted
        )
        return phases | {"rest": rest}


def steps_of(trainer: Trainer, epochs: int) -> Phases:
    """Train, with a clock around everything that a step calls."""
    phases = Phases()
    step, batches = trainer._train_batch, trainer._batches

    def waited(start: int = 0) -> Iterator[Batch]:
        following = phases.around("waiting for data", lambda source: next(source, None))
        source = batches(start)
        while (batch := following(source)) is not None:
            yield batch

    def counted(number: int, batch: Batch) -> torch.Tensor:
        terms: torch.Tensor = phases.around(STEP, step)(number, batch)
        phases.step_ends()
        return terms

    assert trainer.sparse is not None
    places: list[tuple[Any, str, str]] = [
        (Batch, "to", "to device"),
        (loop, "assign_all", "target assignment"),
        (trainer.network, "forward", "forward"),
        (DetectionLoss, "__call__", "loss"),
        (torch.Tensor, "backward", "backward"),
        (SparseTraining, "before_step", "penalty"),
        (trainer.optimizer, "step", "optimizer"),
        (trainer.optimizer, "zero_grad", "optimizer"),
        (trainer.average, "update", "average"),
    ]
    before = [(owner, name, getattr(owner, name)) for owner, name, _ in places]
    for owner, name, phase in places:
        setattr(owner, name, phases.around(phase, getattr(owner, name)))
    vars(trainer).update(_train_batch=counted, _batches=waited)
    try:
        for _ in range(epochs):
            trainer.run_epoch()
    finally:
        for owner, name, function in before:
            setattr(owner, name, function)
    return phases


def shares(shards: ShardSet, epochs: int) -> dict[str, Any]:
    """Seconds and shares of a step by phase, by both clocks."""
    config = make_config(batch=BATCH).model_copy(
        update={"sparsity": SparsityConfig(factor=1e-4), "augment": AugmentConfig()}
    )
    phases = steps_of(Trainer(make_network(), shards, config, SIZE), epochs)
    found: dict[str, Any] = {}
    for clock, name in enumerate(("wall", "thread")):
        table = phases.table(clock, warm_up=2)
        total = sum(table.values())
        outside = 1 - sum(table[phase] for phase in NETWORK) / total
        print(f"a step by the {name} clock: {total:.3f} s, outside forward and backward {outside:.1%}")
        for phase, seconds in sorted(table.items(), key=lambda item: -item[1]):
            print(f"  {phase:18} {seconds * 1e3:8.1f} ms  {seconds / total:6.1%}")
        found[name] = {
            "outside_the_network": round(outside, 4),
            "milliseconds": {phase: round(seconds * 1e3, 2) for phase, seconds in table.items()},
        }
    return found


def second_worker(shards: ShardSet, folder: Path, rounds: int, epochs: int) -> dict[str, Any]:
    """What one worker of one thread trains, and how many times as much two do, in turn, on the same global batches."""
    Bundle(make_network(), CLASSES, SIZE).save(folder / "start")
    contestants: dict[str, Callable[[str], list[float]]] = {
        ONE: lambda name: seconds_of_workers(shards, folder, name, epochs, 1, DEFAULT_NOMINAL),
        TWO: lambda name: seconds_of_workers(shards, folder, name, epochs, 2, DEFAULT_NOMINAL),
        TWO_EVERY_BATCH: lambda name: seconds_of_workers(shards, folder, name, epochs, 2, BATCH),
        APART: lambda name: seconds_apart(shards.folder, folder, name, epochs),
    }
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    for number in range(rounds):
        for place, (name, train) in enumerate(contestants.items()):
            seconds[name] += train(f"{number}-{place}")
    found = {}
    for kind, pick in ("median", median), ("fastest", min):
        one = pick(seconds[ONE])
        # two separate trainings see the images twice
        images = {name: (2 if name == APART else 1) * IMAGES for name in contestants}
        ratios = {name: round(images[name] / IMAGES * one / pick(seconds[name]), 2) for name in contestants}
        print(f"{kind} epoch, one worker {IMAGES / one:.2f} images/s")
        for name, ratio in ratios.items():
            print(f"  {name:60} {ratio:5.2f} ×")
        found[f"{kind}_epoch"] = {"images_per_second_of_one_worker": round(IMAGES / one, 2), "times_as_fast": ratios}
    return found


def seconds_of_workers(
    shards: ShardSet, folder: Path, name: str, epochs: int, workers: int, nominal_batch: int
) -> list[float]:
    """Seconds from epoch to epoch of a training by Ray's workers."""
    config = make_config(epochs=epochs, batch=BATCH).model_copy(update={"nominal_batch": nominal_batch})
    try:
        return epoch_seconds(shards, folder, name, ClusterConfig(workers=workers), config)
    finally:
        ray.shutdown()


def seconds_apart(shards: UPath, folder: Path, name: str, epochs: int) -> list[float]:
    """Seconds of each epoch of two trainings of half a batch that run at the same time in processes of their own."""
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        places = [(str(shards), folder, f"{name}-{one}", epochs) for one in range(2)]
        return [seconds for measured in pool.starmap(train_apart, places, chunksize=1) for seconds in measured]


def train_apart(shards: str, folder: Path, name: str, epochs: int) -> list[float]:
    """Seconds from epoch to epoch of a training without Ray's workers, of a worker's share of each batch."""
    config = make_config(epochs=epochs, batch=BATCH // 2)
    return epoch_seconds(ShardSet.open(UPath(shards)), folder, name, ClusterConfig(workers=0), config)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=4, help="of four steps, the first two steps not counted")
    parser.add_argument("--rounds", type=int, default=3, help="of one and two workers; 0 leaves them out")
    parser.add_argument("--no-result", action="store_true", help="print only, for a try")
    arguments = parser.parse_args()
    use_threads(1)
    keep_freed_memory()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        shards = make_shards(folder / "scenes", IMAGES)
        found = {"step": shares(shards, arguments.epochs)}
        if arguments.rounds:
            found |= second_worker(shards, folder, arguments.rounds, epochs=4)
    if arguments.no_result:
        return
    what = "yolov3-tiny, 416 px, batch 16, sparse, mosaic, one computing thread, one loader thread"
    content = {"what": what, "bfloat16_instructions": bfloat16_is_fast(torch.device("cpu")), **found}
    print(f"written to {publish_result('training_step', content)}")


if __name__ == "__main__":
    main()
