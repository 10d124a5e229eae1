"""Training steps a second: ours against a plain PyTorch loop, and ours under Ray Train against without Ray.

All contestants train yolov3-tiny at 416 px with batch 8 on the same batches, with one computing thread and one
that decodes ahead; one of ours is compiled by `torch.compile` before the rounds that count. The plain loop is float32
in the default memory layout, without moving average; it gets the memory allocator's settings that our workers set for
themselves.

Run: python benchmarks/training.py
"""

import argparse
import copy
import json
import os
import tempfile
from itertools import pairwise
from pathlib import Path
from statistics import median

os.environ["RAY_TRAIN_ENABLE_PRINT_PATCH"] = "0"

import ray
import torch
from generated import SIZE, make_network, make_shards
from measure import publish_result, race, show

from yolo_dist.bundle import Bundle
from yolo_dist.darknet.network import Network
from yolo_dist.data.augment import AugmentConfig
from yolo_dist.data.loader import Loader
from yolo_dist.data.scenes import CLASSES
from yolo_dist.data.shards import ShardSet
from yolo_dist.freed_memory import keep_freed_memory
from yolo_dist.train.cluster import ClusterConfig
from yolo_dist.train.config import TrainConfig
from yolo_dist.train.loop import Trainer
from yolo_dist.train.loss import DetectionLoss
from yolo_dist.train.optimizer import OptimizerConfig, build_optimizer
from yolo_dist.train.precision import Autocast, bfloat16_is_fast
from yolo_dist.train.ray_trainer import EvaluateJob, TrainJob, train_on_workers
from yolo_dist.train.targets import assign_all
from yolo_dist.train.workers import use_threads

BATCH = 8
IMAGES = 32
PLAIN, FLOAT, HALF = "plain loop, float32", "ours, float32", "ours, autocast"
COMPILED = "ours, torch.compile"
"""In the precision that the processor is fastest in."""
OURS = {FLOAT: False} | ({HALF: True} if bfloat16_is_fast(torch.device("cpu")) else {})
"""Autocast only where the processor has the instructions; without them it takes many times as long."""
ALONE, UNDER_RAY = "without Ray", "Ray Train, one worker"
AUGMENT = AugmentConfig(mosaic=0)


def make_config(autocast: Autocast = "auto", epochs: int = 1000, batch: int = BATCH) -> TrainConfig:
    """A stage that only trains: no evaluation, no checkpoint before the end."""
    return TrainConfig(
        epochs=epochs,
        batch_size=batch,
        nominal_batch=batch,
        autocast=autocast,
        augment=AUGMENT,
        evaluate_every=0,
        checkpoint_every=epochs,
    )


class PlainLoop:
    """What one would write first: forward, loss, backward, step."""

    def __init__(self, network: Network, shards: ShardSet) -> None:
        self.network = network.train()
        self.loader = Loader(shards, SIZE, BATCH, augment=AUGMENT, threads=1)
        self.optimizer = build_optimizer(network, OptimizerConfig())
        self.loss = DetectionLoss(network, TrainConfig().loss)

    def epoch(self) -> int:
        """One pass over the data; how many images it had."""
        for batch in self.loader.batches(0):
            outputs = self.network(batch.images.contiguous().float() / 255)
            matches = assign_all(self.network.heads, SIZE, batch.boxes, batch.labels, batch.image_index)
            self.loss(outputs, matches, len(batch), 1.0).total.backward()
            self.optimizer.step()
            self.optimizer.zero_grad()
        return IMAGES


def epoch_of(trainer: Trainer) -> int:
    """One pass of ours; how many images it had."""
    trainer.run_epoch()
    return IMAGES


def compare_loops(shards: ShardSet, rounds: int) -> dict[str, object]:
    """Ours against the plain loop, in turn."""
    network = make_network()
    plain = PlainLoop(copy.deepcopy(network), shards)
    ours = {
        name: Trainer(copy.deepcopy(network), shards, make_config(autocast), SIZE) for name, autocast in OURS.items()
    }
    ours[COMPILED] = Trainer(copy.deepcopy(network), shards, make_config(), SIZE)
    ours[COMPILED].model.compile()
    contestants = {PLAIN: plain.epoch} | {name: lambda one=one: epoch_of(one) for name, one in ours.items()}
    result = race(contestants, rounds)
    show("training yolov3-tiny, 416 px, batch 8", result, PLAIN, "images/s")
    return {
        "images_per_second": result.as_json(),
        "ratio_to_plain_loop": {name: round(result.ratio(name, PLAIN), 3) for name in ours},
    }


def compare_with_ray(shards: ShardSet, folder: Path, rounds: int, epochs: int) -> dict[str, object]:
    """The same stage with one Ray worker and in this process, in turn."""
    Bundle(make_network(), CLASSES, SIZE).save(folder / "start")
    seconds: dict[str, list[float]] = {ALONE: [], UNDER_RAY: []}
    for number in range(rounds):
        for name, workers in ((ALONE, 0), (UNDER_RAY, 1)):
            seconds[name] += epoch_seconds(
                shards, folder, f"{number}-{workers}", ClusterConfig(workers=workers), make_config(epochs=epochs)
            )
    ray.shutdown()
    rates = {name: IMAGES / median(values) for name, values in seconds.items()}
    ratio = rates[UNDER_RAY] / rates[ALONE]
    for name, rate in rates.items():
        print(f"  {name:22} {rate:6.2f} images/s")
    print(f"  Ray Train with one worker: {ratio:.3f} ×")
    return {"images_per_second_with_ray": rates, "ratio_of_ray_to_alone": round(ratio, 3)}


def epoch_seconds(
    shards: ShardSet, folder: Path, name: str, cluster: ClusterConfig, config: TrainConfig
) -> list[float]:
    """Seconds from epoch to epoch of a stage, the first left out."""
    metrics = folder / f"{name}.jsonl"
    evaluation = EvaluateJob(str(folder / "start"), str(shards.folder), str(folder / f"out-{name}"))
    checkpoints = str(folder / "checkpoints" / name)
    job = TrainJob(evaluation, str(shards.folder), config, str(metrics), "benchmark", name, checkpoints)
    train_on_workers(job, cluster)
    ends = [json.loads(line)["seconds"] for line in metrics.read_text().splitlines()]
    return [after - before for before, after in pairwise(ends)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--ray-rounds", type=int, default=3)
    parser.add_argument("--ray-epochs", type=int, default=5)
    arguments = parser.parse_args()
    use_threads(1)
    keep_freed_memory()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        shards = make_shards(folder / "scenes", IMAGES)
        loops = compare_loops(shards, arguments.rounds)
        under_ray = compare_with_ray(shards, folder, arguments.ray_rounds, arguments.ray_epochs)
    what = "yolov3-tiny, 416 px, batch 8, one computing thread, one loader thread"
    bfloat16 = bfloat16_is_fast(torch.device("cpu"))
    path = publish_result("training", {"what": what, "bfloat16_instructions": bfloat16, **loops, **under_ray})
    print(f"written to {path}")


if __name__ == "__main__":
    main()
