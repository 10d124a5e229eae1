"""Run a function on a group of Ray Train workers: one path for one worker, many, CPU and GPU."""

import logging
from collections.abc import Callable
from typing import Annotated, Any, TypeVar

import ray
import ray.train
import ray.train.torch
from annotated_types import Ge
from upath import UPath

from yolo_dist.config import Config
from yolo_dist.errors import TrainError, YoloDistError
from yolo_dist.freed_memory import keep_freed_memory
from yolo_dist.ray_cluster import join_cluster
from yolo_dist.train.workers import Workers, use_threads

KEPT_CHECKPOINTS = 2

JobT = TypeVar("JobT")


class ClusterConfig(Config):
    """What a stage runs on. The cluster itself is the one that RAY_ADDRESS names, or this machine."""

    workers: Annotated[int, Ge(0)] = 1
    """Processes that train together; 0 trains in this process, without Ray's workers or checkpoints."""
    cpus_per_worker: Annotated[int, Ge(1)] = 1
    """Cores, and so computing threads, of each worker."""
    gpus_per_worker: Annotated[float, Ge(0)] = 0
    """GPUs of each worker."""


def run_on_workers(
    function: Callable[[JobT, Workers], None], job: JobT, cluster: ClusterConfig, checkpoints: UPath, name: str
) -> None:
    """Call `function(job, workers)` in every worker; a second call of the same name goes on where the first ended.

    Args:
        function: what to do; it leaves its results in files.
        job: what it is told; travels to other machines.
        cluster: how many workers.
        checkpoints: folder or URL for Ray's checkpoints, under `name`; they stay: remove them once the
            results are where they belong, for a crash on the way there would cost all of the work.
        name: identifies everything that the job depends on.

    Raises:
        YoloDistError: what a worker raised; `TrainError` where it was none of ours.
    """
    connect(cluster)
    logging.getLogger("ray.train").setLevel(logging.WARNING)  # without workers Ray's own option has no effect
    resources = {"CPU": cluster.cpus_per_worker} | ({"GPU": cluster.gpus_per_worker} if cluster.gpus_per_worker else {})
    trainer = ray.train.torch.TorchTrainer(
        _call,
        train_loop_config={"function": function, "job": job, "threads": cluster.cpus_per_worker},
        scaling_config=ray.train.ScalingConfig(
            num_workers=cluster.workers, use_gpu=cluster.gpus_per_worker > 0, resources_per_worker=resources
        ),
        run_config=ray.train.RunConfig(  # type: ignore[call-arg]  # its annotation is that of the older API
            name=name,
            storage_path=str(checkpoints),
            checkpoint_config=ray.train.CheckpointConfig(num_to_keep=KEPT_CHECKPOINTS),
            logging_config=ray.train.LoggingConfig(log_level="WARNING"),
        ),
    )
    try:
        trainer.fit()
    except ray.train.TrainingFailedError as error:
        raise _cause(error) from error


def connect(cluster: ClusterConfig) -> None:
    """Join the cluster of RAY_ADDRESS or start Ray on this machine, once; nothing for workers in this process.

    Raises:
        ConfigError: this machine has fewer cores or GPUs than the workers need.
    """
    if cluster.workers:
        needed = {"CPU": cluster.cpus_per_worker, "GPU": cluster.gpus_per_worker}
        join_cluster(needed, cluster.workers, "cluster.workers")


def _call(settings: dict[str, Any]) -> None:
    use_threads(settings["threads"])
    keep_freed_memory()  # without workers this is the driver's own process
    logging.getLogger().setLevel(logging.WARNING)  # Ray reports every report
    context = ray.train.get_context()
    workers = Workers(context.get_world_rank(), context.get_world_size(), ray.train.torch.get_device())
    settings["function"](settings["job"], workers)


def _cause(error: BaseException) -> YoloDistError:
    """Our own error out of what Ray wrapped around it."""
    failures = list(getattr(error, "worker_failures", {}).values()) or [getattr(error, "controller_failure", error)]
    for failure in failures:
        seen: BaseException | None = failure
        while seen is not None:
            if isinstance(seen, YoloDistError):
                return seen
            seen = getattr(seen, "cause", None) or seen.__cause__
    last_line = (str(failures[0]).splitlines() or [""])[-1]  # above it Ray may have put a traceback
    return TrainError(
        f"a worker failed: {type(failures[0]).__name__}: {last_line}; "
        "the same command again goes on from the last checkpoint"
    )
