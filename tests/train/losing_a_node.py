"""Trains on a cluster of two nodes of this machine, of which one is lost on the way and another one joins later.

Usage: losing_a_node.py FOLDER, which holds `start` (a bundle) and `train` (shards); afterwards its `seen-*.jsonl` tell
what each worker was shown.
"""

import json
import os
import signal
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import ray
import torch
from ray.cluster_utils import Cluster
from tiny_training import training
from upath import UPath

from yolo_dist.train import cluster as cluster_module
from yolo_dist.train import ray_trainer
from yolo_dist.train.cluster import ClusterConfig, connect, run_on_workers
from yolo_dist.train.loop import Trainer
from yolo_dist.train.ray_trainer import EvaluateJob, TrainJob
from yolo_dist.train.workers import Workers

LOST_AT, JOINS_AT = (1, 2), (2, 1)
"""Epoch and step."""
CONFIG: dict[str, Any] = {"epochs": 4, "batch_size": 2, "nominal_batch": 4, "checkpoint_every": {"steps": 1}}


def train_with_losses(job: TrainJob, workers: Workers) -> None:
    """Training in which a worker loses its node, which is not the driver's, and a lonely one waits for company.

    Nothing is found out by waiting for some time: who is killed kills itself, and who waits is told.
    """
    folder = Path(job.start.output).parent
    elsewhere = ray.get_runtime_context().get_node_id() != (folder / "driver").read_text()
    train_batch = Trainer._train_batch

    def planted(trainer: Trainer, step: int, batch: Any) -> torch.Tensor:
        place = (trainer.epoch, step)
        if place == LOST_AT and elsewhere and not (folder / "lost").exists():
            (folder / "lost").touch()
            raylet = os.getppid()
            assert "raylet" in Path(f"/proc/{raylet}/comm").read_text()
            os.kill(raylet, signal.SIGKILL)
            os.kill(os.getpid(), signal.SIGKILL)
        if place == JOINS_AT and workers.size == 1:
            (folder / "lonely").write_text("")  # a named pipe, at which the driver listens
            threading.Event().wait()  # only being started again with another worker gets this one on
        terms = train_batch(trainer, step, batch)
        with (folder / f"seen-{os.getpid()}.jsonl").open("a") as file:
            line = {"epoch": trainer.epoch, "step": step, "workers": workers.size, "samples": batch.samples.tolist()}
            line["time"] = time.monotonic_ns()
            file.write(json.dumps(line) + "\n")
        return terms

    Trainer._train_batch = planted  # type: ignore[method-assign,assignment]
    ray_trainer._train(job, workers)


def stop_listening(pipe: Path) -> None:
    """Let go whoever may still listen at a named pipe."""
    with suppress(OSError):
        os.close(os.open(pipe, os.O_WRONLY | os.O_NONBLOCK))


def main() -> None:
    """Run it, and end what was started."""
    folder = Path(sys.argv[1])
    os.mkfifo(folder / "lonely")
    evaluation = EvaluateJob(str(folder / "start"), str(folder / "train" / "train"), str(folder / "out"))
    job = TrainJob(
        evaluation,
        evaluation.validation,
        training(**CONFIG),
        str(folder / "metrics.jsonl"),
        "run",
        "base",
        str(folder / "checkpoints" / "base"),
    )
    nodes = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    try:
        nodes.add_node(num_cpus=1)
        os.environ["RAY_ADDRESS"] = nodes.address
        cluster_module.RESIZE_SECONDS = 1.0
        elastic = ClusterConfig(workers=(1, 2))
        connect(elastic)
        (folder / "driver").write_text(ray.get_runtime_context().get_node_id())

        with ThreadPoolExecutor(1) as beside:  # nodes are added in the main thread
            checkpoints = UPath(folder / "checkpoints")
            training_ends = beside.submit(run_on_workers, train_with_losses, job, elastic, checkpoints, "base")
            training_ends.add_done_callback(lambda _: stop_listening(folder / "lonely"))
            (folder / "lonely").read_text()
            if not training_ends.done():
                nodes.add_node(num_cpus=1)
            training_ends.result()
    finally:
        ray.shutdown()
        nodes.shutdown()


if __name__ == "__main__":
    main()
