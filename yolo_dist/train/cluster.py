"""Run a function on a group of Ray Train workers: one path for one worker, many, CPU and GPU."""

import logging
import tempfile
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import nullcontext
from functools import partial
from itertools import count
from typing import Annotated, Any, TypeVar

import ray
import ray.exceptions
import ray.train
import ray.train.torch
from annotated_types import Ge
from pydantic import BeforeValidator
from upath import UPath

from yolo_dist.config import Config
from yolo_dist.console import say
from yolo_dist.errors import Interrupted, MachineFailed, OutOfMemory, TrainError, YoloDistError
from yolo_dist.freed_memory import keep_freed_memory
from yolo_dist.object_store import is_remote
from yolo_dist.ray_cluster import join_cluster
from yolo_dist.shortage import is_full_disk, is_lack_of_memory
from yolo_dist.train.stopping import Stop, StopOnCluster, hearing_signals
from yolo_dist.train.workers import Workers, use_threads

RESIZE_SECONDS = 60.0
"""How often workers may be added to those that train: each time all begin again from the last checkpoint."""

ENDED_BY_RAY = "node running low on memory"
"""What Ray says of processes that its memory monitor ended."""
FEWER_WORKERS = "run fewer workers on a machine"

JobT = TypeVar("JobT")


def _fewest_and_most(value: Any) -> int | tuple[int, int]:
    match value:
        case bool():
            pass
        case int() if value >= 0:
            return value
        case [int(fewest), int(most)] if 1 <= fewest <= most:
            return fewest, most
    raise ValueError("give a number from 0, or [fewest, most] from 1")


class ClusterConfig(Config):
    """What a stage runs on. The cluster itself is the one that RAY_ADDRESS names, or this machine."""

    workers: Annotated[int | tuple[int, int], BeforeValidator(_fewest_and_most)] = 1
    """Processes that train together, or [fewest, most]: as many as there is room for; 0 trains in this process."""
    max_failures: Annotated[int, Ge(0)] = 3
    """How often training goes on from its last checkpoint by itself after a worker or a node was lost."""
    cpus_per_worker: Annotated[int, Ge(1)] = 1
    """Cores, and so computing threads, of each worker."""
    gpus_per_worker: Annotated[float, Ge(0)] = 0
    """GPUs of each worker."""

    @property
    def fewest_workers(self) -> int:
        """Workers without which nothing begins."""
        return self.workers if isinstance(self.workers, int) else self.workers[0]

    @property
    def most_workers(self) -> int:
        """Workers where the cluster has room for them."""
        return self.workers if isinstance(self.workers, int) else self.workers[1]

    @property
    def resources(self) -> dict[str, float]:
        """What each worker needs, in Ray's words."""
        return {"CPU": self.cpus_per_worker, "GPU": self.gpus_per_worker}


def run_on_workers(
    function: Callable[[JobT, Workers], None],
    job: JobT,
    cluster: ClusterConfig,
    checkpoints: UPath,
    name: str,
    stoppable: bool = False,
    less_memory: Callable[[JobT], str] = lambda _job: FEWER_WORKERS,
) -> None:
    """Call `function(job, workers)` in every worker, again where one was lost and others are left.

    Args:
        function: what to do; it leaves its results in files.
        job: what it is told; travels to other machines.
        cluster: how many workers.
        checkpoints: folder or URL, in that of the run, for what Ray notes about its workers, under `name`; it stays.
        name: identifies everything that the job depends on.
        stoppable: whether the function ends when `workers.asked_to_stop` says so; then a first SIGINT or SIGTERM does.
        less_memory: what to change so that a job needs less of it; asked once there was not enough.

    Raises:
        YoloDistError: what a worker raised; `TrainError` where it was none of ours, and came too often.
        MachineFailed: a disk is full, or workers were lost too often.
        OutOfMemory: a worker or its machine had too little; another try would be the same.
        Interrupted: a signal came while it ended by itself.
    """
    connect(cluster)
    logging.getLogger("ray.train").setLevel(logging.WARNING)  # without workers Ray's own option has no effect
    stop = StopOnCluster() if cluster.most_workers else Stop()
    own_error = partial(_own_error, checkpoints=checkpoints, less_memory=partial(less_memory, job))
    loop = {"function": function, "job": job, "cluster": cluster, "stop": stop, "own_error": own_error}
    with hearing_signals(stop.ask) if stoppable else nullcontext():
        for failures in count(1):
            try:
                _fit(_trainer(loop, cluster, checkpoints, name))
                break
            except ray.train.TrainingFailedError as error:
                if (own := own_error(error)) is not None:
                    raise own from error  # it would come again
                failed = _described(error)
                if failures > cluster.max_failures or stop.signal:
                    kind = MachineFailed if _lost(error) else TrainError
                    raise kind(f"{failed}; the same command goes on from the last checkpoint") from error
                say(f"{failed}; going on from the last checkpoint ({failures} of {cluster.max_failures} times)")
    if stop.signal:
        raise Interrupted(stop.signal, "when training was over")


def _trainer(
    loop: dict[str, Any], cluster: ClusterConfig, checkpoints: UPath, name: str
) -> ray.train.torch.TorchTrainer:
    resources = {"CPU": cluster.cpus_per_worker} | ({"GPU": cluster.gpus_per_worker} if cluster.gpus_per_worker else {})
    return ray.train.torch.TorchTrainer(
        _call,
        train_loop_config=loop,
        scaling_config=ray.train.ScalingConfig(  # type: ignore[call-arg]  # its annotation is that of the older API
            num_workers=cluster.workers,  # type: ignore[arg-type]
            use_gpu=cluster.gpus_per_worker > 0,
            resources_per_worker=resources,
            elastic_resize_monitor_interval_s=RESIZE_SECONDS,
        ),
        run_config=ray.train.RunConfig(  # type: ignore[call-arg]  # its annotation is that of the older API
            name=name,
            storage_path=str(checkpoints),
            logging_config=ray.train.LoggingConfig(log_level="WARNING"),
        ),
    )


def _fit(trainer: ray.train.torch.TorchTrainer) -> None:
    """Run it beside the main thread, in which it would take SIGINT for itself."""
    if trainer.scaling_config.num_workers == 0 or threading.current_thread() is not threading.main_thread():
        trainer.fit()
        return
    done: Future[None] = Future()

    def fit() -> None:
        try:
            trainer.fit()
        except BaseException as error:
            done.set_exception(error)
        else:
            done.set_result(None)

    threading.Thread(target=fit, name="fit", daemon=True).start()
    done.result()


def connect(cluster: ClusterConfig) -> None:
    """Join the cluster of RAY_ADDRESS or start Ray on this machine, once; nothing for workers in this process.

    Raises:
        ConfigError: this machine has fewer cores or GPUs than the workers need.
    """
    if cluster.most_workers:
        join_cluster(cluster.resources, cluster.fewest_workers, "cluster.workers")


def _call(settings: dict[str, Any]) -> None:
    cluster: ClusterConfig = settings["cluster"]
    use_threads(cluster.cpus_per_worker)
    keep_freed_memory()  # without workers this is the driver's own process
    logging.getLogger().setLevel(logging.WARNING)  # Ray reports every report
    context = ray.train.get_context()
    rank, size = context.get_world_rank(), context.get_world_size()
    asked_to_stop = settings["stop"].asked if rank == 0 else lambda: 0
    workers = Workers(rank, size, ray.train.torch.get_device(), asked_to_stop, max(size, cluster.most_workers))
    try:
        settings["function"](settings["job"], workers)
    except YoloDistError:
        raise
    except Exception as error:  # here, for an error that travels to the driver leaves its cause behind
        if (own := settings["own_error"](error)) is None:
            raise
        raise own from error


def _failures(error: BaseException) -> list[BaseException]:
    """What Ray wrapped."""
    return list(getattr(error, "worker_failures", {}).values()) or [getattr(error, "controller_failure", error)]


def _causes(error: BaseException) -> Iterator[BaseException]:
    """What Ray wrapped, and what is behind it."""
    for failure in _failures(error):
        seen: BaseException | None = failure
        while seen is not None:
            yield seen
            seen = getattr(seen, "cause", None) or getattr(seen, "health_check_failure", None) or seen.__cause__


def _lost(error: BaseException) -> bool:
    """Whether Ray says that a worker or its node is gone, and not what it raised."""
    causes = [error, *_causes(error)]
    own = (ray.train.ControllerError, ray.exceptions.RayError)
    return any(isinstance(cause, own) and not isinstance(cause, ray.exceptions.RayTaskError) for cause in causes)


def _own_error(error: BaseException, checkpoints: UPath, less_memory: Callable[[], str]) -> YoloDistError | None:
    """Our own error out of what Ray wrapped around it, or one that says what ran out; None for all others."""
    for cause in _causes(error):
        if isinstance(cause, YoloDistError):
            return cause
        if is_full_disk(cause):
            return MachineFailed(
                f"{_written_to(cause, checkpoints)}: the disk or a quota is full; make room, then the same command "
                "goes on from the last checkpoint"
            )
        if isinstance(cause, ray.exceptions.OutOfMemoryError) or ENDED_BY_RAY in str(cause):
            return OutOfMemory(f"Ray ended a worker because its machine ran out of memory; {less_memory()}")
        if is_lack_of_memory(cause):
            return OutOfMemory(f"a worker ran out of memory; {less_memory()}")
    return None


def _written_to(error: BaseException, checkpoints: UPath) -> str:
    """The file that had no room if the error knows it, else the run's folder; uploads begin in a temporary one."""
    folder = tempfile.gettempdir() if is_remote(checkpoints) else checkpoints.parent
    return str(getattr(error, "filename", None) or folder)


def _described(error: BaseException) -> str:
    """Another's error in one line."""
    failure = _failures(error)[0]
    last_line = (str(failure).splitlines() or [""])[-1]  # above it Ray may have put a traceback
    return f"a worker failed: {type(failure).__name__}: {last_line}"
