"""What the driver asks of a cluster, and which error reaches the person behind it."""

import errno
import os
import tempfile
from pathlib import Path
from typing import Any

import pytest
import ray
import ray.exceptions
import ray.train
import ray.train.torch
from ray.train.v2._internal.exceptions import WorkerHealthCheckFailedError
from upath import UPath

from yolo_dist.config import validate
from yolo_dist.errors import (
    ConfigError,
    MachineFailed,
    NonFiniteLoss,
    OutOfMemory,
    ShardCorrupt,
    TrainError,
    YoloDistError,
)
from yolo_dist.train.cluster import ClusterConfig, connect, run_on_workers
from yolo_dist.train.workers import Workers

HERE = ClusterConfig(workers=0)


NO_ROOM = os.strerror(errno.ENOSPC)


def wrapped(error: Exception) -> Exception:
    """`error` as the cause of another one."""
    outer = RuntimeError("outer")
    outer.__cause__ = error
    return outer


LOST_NODE = WorkerHealthCheckFailedError("not healthy", ray.exceptions.ActorDiedError())
OURS = NonFiniteLoss("the loss is not finite at epoch 2, step 1")
AGAIN = "; the same command goes on from the last checkpoint"


@pytest.mark.parametrize(
    ("failure", "expected"),
    [
        pytest.param(ray.train.WorkerGroupError("traceback", {0: OURS}), OURS, id="ours"),
        pytest.param(ray.train.WorkerGroupError("traceback", {0: wrapped(OURS)}), OURS, id="ours, wrapped"),
        pytest.param(
            ray.train.WorkerGroupError("traceback", {0: RuntimeError("connection closed"), 1: OURS}),
            OURS,
            id="ours in the second worker, which the first one lost",
        ),
        pytest.param(
            ray.train.WorkerGroupError("traceback", {0: ValueError("not ours")}),
            TrainError(f"a worker failed: ValueError: not ours{AGAIN}"),
            id="another's",
        ),
        pytest.param(
            ray.train.WorkerGroupError("traceback", {0: RuntimeError("Traceback:\n  file\nMemoryError: too much")}),
            TrainError(f"a worker failed: RuntimeError: MemoryError: too much{AGAIN}"),
            id="another's with a traceback in its text",
        ),
        pytest.param(
            ray.train.WorkerGroupError("traceback", {0: KeyError()}),
            TrainError(f"a worker failed: KeyError: {AGAIN}"),
            id="one without words",
        ),
        pytest.param(
            ray.train.ControllerError(OSError("connection reset")),
            MachineFailed(f"a worker failed: OSError: connection reset{AGAIN}"),
            id="Ray's own controller",
        ),
        pytest.param(
            ray.train.WorkerGroupError("traceback", {0: RuntimeError("connection closed"), 1: LOST_NODE}),
            MachineFailed(f"a worker failed: RuntimeError: connection closed{AGAIN}"),
            id="a node that is gone, which another worker noticed first",
        ),
    ],
)
def test_the_error_behind_a_failed_run_reaches_the_caller_in_one_line(
    failure: Exception, expected: YoloDistError, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fit(_trainer: Any) -> None:
        raise failure

    monkeypatch.setattr(ray.train.torch.TorchTrainer, "fit", fit)
    with pytest.raises(type(expected)) as caught:
        run_on_workers(lambda _job, _workers: None, None, HERE, UPath(tmp_path), "failing")
    assert str(caught.value) == str(expected)
    assert "\n" not in str(caught.value)


def test_a_failure_that_is_not_ours_is_tried_again_and_ours_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A lost worker has no error of ours; an error of ours would come again."""
    lost = ray.train.WorkerGroupError("traceback", {0: RuntimeError("connection closed by peer")})
    outcomes: list[Exception] = []

    def fit(_trainer: Any) -> None:
        raise outcomes.pop(0)

    monkeypatch.setattr(ray.train.torch.TorchTrainer, "fit", fit)
    outcomes[:] = [lost, lost, ray.train.WorkerGroupError("traceback", {1: OURS}), lost]
    with pytest.raises(NonFiniteLoss):
        run_on_workers(lambda _job, _workers: None, None, HERE, UPath(tmp_path), "failing")
    assert outcomes == [lost]
    said = "a worker failed: RuntimeError: connection closed by peer; going on from the last checkpoint"
    assert capsys.readouterr().out.splitlines() == [f"{said} (1 of 3 times)", f"{said} (2 of 3 times)"]

    once = ClusterConfig(workers=0, max_failures=1)
    outcomes[:] = [lost, lost, OURS]
    with pytest.raises(TrainError, match="the same command goes on"):
        run_on_workers(lambda _job, _workers: None, None, once, UPath(tmp_path), "failing")
    assert outcomes == [OURS]


@pytest.mark.parametrize(
    ("failure", "named"),
    [
        pytest.param(OSError(errno.ENOSPC, NO_ROOM), "{run}", id="of a write, which knows no file"),
        pytest.param(OSError(errno.EDQUOT, "quota", "/data/run/bundle"), "/data/run/bundle", id="of a known file"),
        pytest.param(wrapped(OSError(errno.ENOSPC, NO_ROOM)), "{run}", id="behind another error"),
        pytest.param(RuntimeError(f"I/O error: {NO_ROOM} (os error 28)"), "{run}", id="in the words of a library"),
    ],
)
@pytest.mark.parametrize("by_ray", [False, True], ids=["in the worker", "in Ray's controller"])
def test_a_full_disk_is_one_line_and_not_tried_again(
    failure: Exception, named: str, by_ray: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []

    def fail(*_: object) -> None:
        calls.append("once")
        raise ray.train.ControllerError(failure) if by_ray else failure

    if by_ray:
        monkeypatch.setattr(ray.train.torch.TorchTrainer, "fit", fail)
    with pytest.raises(MachineFailed) as caught:
        run_on_workers(fail, None, HERE, UPath(tmp_path / "run" / "checkpoints"), "full")
    place = named.format(run=tmp_path / "run")
    assert str(caught.value) == f"{place}: the disk or a quota is full; make room, then{AGAIN[1:]}"
    assert calls == ["once"]


def test_the_full_disk_of_a_run_in_an_object_store_is_that_of_temporary_files(tmp_path: Path) -> None:
    def fail(_job: None, _workers: Workers) -> None:
        raise OSError(errno.ENOSPC, NO_ROOM)

    # Ray notes nothing about workers in this process
    with pytest.raises(MachineFailed, match=f"^{tempfile.gettempdir()}: the disk or a quota is full"):
        run_on_workers(fail, None, HERE, UPath("memory://bucket/run/checkpoints"), "full")


BY_RAY = ray.exceptions.OutOfMemoryError(
    "2 worker(s) were killed due to the node running low on memory. OOM kill reason: …\nRefer to the documentation …"
)
LOST = RuntimeError("connection closed by peer")
ENDED = "Ray ended a worker because its machine ran out of memory; take less than 16"


@pytest.mark.parametrize(
    ("failures", "expected"),
    [
        pytest.param({0: BY_RAY}, ENDED, id="ended by Ray"),
        pytest.param({0: LOST, 1: BY_RAY}, ENDED, id="ended by Ray, which the first worker lost"),
        pytest.param({0: WorkerHealthCheckFailedError("failed", failure=BY_RAY)}, ENDED, id="ended by Ray, wrapped"),
        pytest.param({0: RuntimeError(str(BY_RAY))}, ENDED, id="ended by Ray, in its words"),
        pytest.param({0: MemoryError()}, "a worker ran out of memory; take less than 16", id="of the worker itself"),
    ],
)
def test_a_lack_of_memory_is_not_tried_again_and_says_what_to_change(
    failures: dict[int, Exception], expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    outcomes: list[Exception] = [LOST, ray.train.WorkerGroupError("traceback", failures)]

    def fit(_trainer: Any) -> None:
        raise outcomes.pop()

    def less(job: int) -> str:
        return f"take less than {job}"

    monkeypatch.setattr(ray.train.torch.TorchTrainer, "fit", fit)
    with pytest.raises(OutOfMemory) as caught:
        run_on_workers(lambda _job, _workers: None, 16, HERE, UPath(tmp_path), "large", less_memory=less)
    assert str(caught.value) == expected
    assert outcomes == [LOST]


def test_a_worker_in_this_process_without_memory_says_what_to_change(tmp_path: Path) -> None:
    def fail(_job: None, _workers: Workers) -> None:
        raise MemoryError

    with pytest.raises(OutOfMemory, match=r"^a worker ran out of memory; run fewer workers on a machine$"):
        run_on_workers(fail, None, HERE, UPath(tmp_path), "large")


def test_elastic_workers_are_a_pair() -> None:
    cluster = validate(ClusterConfig, {"workers": [1, 4]}, "cluster")
    assert (cluster.workers, cluster.fewest_workers, cluster.most_workers) == ((1, 4), 1, 4)
    assert cluster.model_dump(mode="json")["workers"] == [1, 4]
    fixed = ClusterConfig(workers=2)
    assert (fixed.fewest_workers, fixed.most_workers) == (2, 2)


def test_without_workers_a_function_runs_here_as_the_only_worker(tmp_path: Path) -> None:
    seen: list[tuple[str, Workers]] = []
    run_on_workers(lambda job, workers: seen.append((job, workers)), "job", HERE, UPath(tmp_path), "here")
    ((job, workers),) = seen
    assert job == "job"
    assert (workers.rank, workers.size, workers.device.type) == (0, 1, "cpu")
    assert workers.first
    assert not ray.is_initialized() or ray.cluster_resources()["CPU"] >= 2


def test_an_error_in_this_process_needs_no_unwrapping(tmp_path: Path) -> None:
    def corrupt(_job: None, _workers: Workers) -> None:
        raise ShardCorrupt("shard-00000.arrow", "a", "b")

    with pytest.raises(ShardCorrupt, match="shard-00000"):
        run_on_workers(corrupt, None, HERE, UPath(tmp_path), "corrupt")


@pytest.mark.parametrize(
    ("cluster", "problem"),
    [
        (
            ClusterConfig(workers=3),
            "cluster.workers: 3 workers of 1 CPUs do not fit on 1 nodes of up to 2 CPUs, which have room for 2",
        ),
        (ClusterConfig(workers=(3, 9)), "3 workers of 1 CPUs do not fit"),
        (ClusterConfig(workers=2, cpus_per_worker=2), "2 workers of 2 CPUs do not fit"),
        (
            ClusterConfig(workers=1, gpus_per_worker=1),
            "1 workers of 1 CPUs and 1 GPUs do not fit on 1 nodes of up to 2 CPUs and 0 GPUs",
        ),
    ],
)
def test_more_than_this_machine_has_is_refused_before_anything_waits_for_it(
    cluster: ClusterConfig, problem: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(ray, "is_initialized", lambda: True)
    monkeypatch.setattr(ray, "nodes", lambda: [{"Alive": True, "Resources": {"CPU": 2.0}}])
    with pytest.raises(ConfigError, match=problem):
        connect(cluster)


@pytest.mark.parametrize(
    "values",
    [
        *({"workers": workers} for workers in (-1, [2, 1], [0, 2], [1], [1, 2, 3], "two", True)),
        {"max_failures": -1},
        {"cpus_per_worker": 0},
        {"gpus_per_worker": -1},
        {"nodes": 2},
    ],
)
def test_wrong_settings_are_refused_by_name(values: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=f"^cluster: {next(iter(values))}"):
        validate(ClusterConfig, values, "cluster")
