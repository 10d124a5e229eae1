"""One trial: what is known of it, however it ends, and of Tune's process around it."""

import errno
import os
import shutil
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fsspec.implementations.memory import MemoryFileSystem
from ray.exceptions import NodeDiedError
from searches import prepare, record, space
from wandb_log import configurations, records

from yolo_dist.config import read_yaml
from yolo_dist.errors import Interrupted, MachineFailed, NonFiniteLoss, RunHeld, StorageError
from yolo_dist.recipe import Recipe
from yolo_dist.stage_cache import StageResult
from yolo_dist.storage import location, publish
from yolo_dist.train.tracking import read_metrics
from yolo_dist.tune import trial_process
from yolo_dist.tune.record import TrialRecord, finished_stages, read_record, read_records
from yolo_dist.tune.space import recipe_of
from yolo_dist.tune.trial import TrialPlan, run_trial
from yolo_dist.tune.trial_process import TrialProcess

VALUES = {"base.optimizer.learning_rate": 0.01, "pruned.percent": 0.5}


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return prepare(tmp_path_factory.mktemp("trial"))


@pytest.fixture
def folder(prepared: Path, tmp_path: Path) -> Path:
    return shutil.copytree(prepared, tmp_path, dirs_exist_ok=True)


def plan(folder: Path, run: Any = None, **changes: Any) -> TrialPlan:
    made = TrialPlan(space(folder, **changes), read_yaml(folder / "recipe.yaml"), str(folder / "search"))
    return made if run is None else replace(made, run=run)


def result(**changes: Any) -> StageResult:
    values: dict[str, Any] = {
        "id": "tuned",
        "kind": "train",
        "map": 0.2,
        "map50": 0.4,
        "parameters": 9,
        "macs": 8,
        "weight_bytes": 7,
    }
    return StageResult(**{**values, "latency_ms": None, "seconds": 1.0, "cached": False} | changes)


def finishing(_recipe: Recipe, _stages: Any) -> list[StageResult]:
    return [result(id="base", parameters=99), result()]


def failing(error: BaseException) -> Callable[..., list[StageResult]]:
    def run(_recipe: Recipe, _stages: Any) -> list[StageResult]:
        raise error

    return run


def test_a_trial_runs_its_recipe_in_the_searchs_folder(folder: Path) -> None:
    record = run_trial(plan(folder), VALUES)
    run = folder / "search" / "trials" / record.id
    assert record.state == "finished"
    assert record == read_record(location(folder / "search"), record.id)
    assert [row["id"] for row in record.stages] == ["base", "pruned", "tuned"]
    assert record.measured["parameters"] == record.stages[-1]["parameters"] < record.stages[0]["parameters"]
    assert read_yaml(run / "recipe.yaml")["stages"][1]["percent"] == 0.5
    assert (run / "report.html").exists()


def test_the_row_of_the_stage_that_is_looked_at_counts(folder: Path) -> None:
    record = run_trial(plan(folder, finishing, stage="base"), VALUES)
    assert record.measured["parameters"] == 99


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (NonFiniteLoss("loss is\nnot finite"), "loss is not finite"),
        (ZeroDivisionError("by 0"), "unexpected ZeroDivisionError: by 0"),
    ],
)
def test_a_trial_that_fails_tells_its_reason(folder: Path, error: Exception, reason: str) -> None:
    record = run_trial(plan(folder, failing(error)), VALUES)
    assert (record.state, record.reason, record.measured) == ("failed", reason, {})


def test_an_empty_layer_fails_the_trial_with_the_percent_that_works(folder: Path) -> None:
    record = run_trial(plan(folder), {**VALUES, "pruned.percent": 0.99})
    assert record.state == "failed"
    assert "the largest percent that works" in (record.reason or "")
    assert [row["id"] for row in record.stages] == ["base"]


def test_an_objective_that_a_stage_leaves_out_fails_the_trial(folder: Path) -> None:
    record = run_trial(plan(folder, finishing, objectives={"latency_ms": "minimise"}), VALUES)
    assert record.reason == "stage tuned reports no latency_ms"


@pytest.mark.parametrize(
    "error",
    [
        Interrupted(15, "here"),
        StorageError("s3://runs: away"),
        RunHeld("is held"),
        MachineFailed("a worker failed; the same command goes on"),
        OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)),
        NodeDiedError("gone"),
    ],
    ids=lambda e: type(e).__name__,
)
def test_a_trial_that_did_not_fail_by_itself_is_not_over(folder: Path, error: Exception) -> None:
    with pytest.raises(type(error)):
        run_trial(plan(folder, failing(error)), VALUES)
    (record,) = read_records(location(folder / "search"))
    assert not record.over


def test_a_refused_recipe_is_the_reason_where_evaluations_are_watched_too(folder: Path) -> None:
    refused = process(plan(folder, finishing, stopping={}), {**VALUES, "pruned.percent": 2})
    assert refused.step()["losses"] is None
    (record,) = read_records(location(folder / "search"))
    assert record.state == "failed"
    assert "stages.1.percent: Input should be less than 1" in (record.reason or "")


def test_what_a_stopped_trial_runs_into_afterwards_does_not_count(folder: Path) -> None:
    search = location(folder / "search")

    def stopped_meanwhile(recipe: Recipe, _stages: Any) -> list[StageResult]:
        TrialRecord(id=recipe.name, values=VALUES, state="stopped", began=1.0, ended=2.0).save(search)
        raise RuntimeError("its workers are gone")

    assert run_trial(plan(folder, stopped_meanwhile), VALUES).state == "stopped"
    assert [record.state for record in read_records(search)] == ["stopped"]


def test_a_store_that_fails_once_is_asked_again(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    search = location(f"memory://{folder.name}")
    record("one", 0.5, 900).save(search)
    publish(search / "trials" / "one" / "metrics.jsonl", '{"stage": "base"}\n')
    publish(search / "trials" / "one" / "results.json", '[{"id": "base"}]')
    reads: dict[str, int] = {}
    opened = MemoryFileSystem.open

    def fails_at_first(self: MemoryFileSystem, path: str, *args: Any, **options: Any) -> Any:
        reads[path] = reads.get(path, 0) + 1
        if reads[path] == 1:
            raise OSError("connection reset by peer")
        return opened(self, path, *args, **options)

    monkeypatch.setattr(MemoryFileSystem, "open", fails_at_first)
    monkeypatch.setattr("yolo_dist.object_store.LONGEST_WAIT", 0)
    assert [trial.id for trial in read_records(search)] == ["one"]
    assert read_metrics(search / "trials" / "one" / "metrics.jsonl") == [{"stage": "base"}]
    assert finished_stages(search, "one") == ({"id": "base"},)
    assert set(reads.values()) == {2}


def test_a_record_that_is_damaged_is_no_record(folder: Path) -> None:
    record = run_trial(plan(folder, finishing), VALUES)
    (folder / "search" / "trials" / record.id / "trial.json").write_text("{")
    assert read_records(location(folder / "search")) == []


def process(made: TrialPlan, values: Any) -> TrialProcess:
    trial = TrialProcess.__new__(TrialProcess)  # without what Tune adds around it
    trial.setup({"values": values}, made)
    return trial


def test_tune_learns_the_losses_and_the_limits(folder: Path) -> None:
    limited = plan(folder, finishing, constraints={"macs": {"most": 4}})
    assert process(limited, VALUES).step() == {
        "epoch": 0,
        "map": 0.0,
        "done": True,
        "losses": [-0.4, 9.0],
        "excess": [1.0],
    }


def test_a_process_runs_one_trial_after_another(folder: Path) -> None:
    trial = process(plan(folder, finishing), VALUES)
    trial.step()
    assert trial.reset_config({"values": {**VALUES, "pruned.percent": 0.3}})
    assert trial.step()["done"]
    assert len(read_records(location(folder / "search"))) == 2


def test_a_process_that_is_never_asked_for_anything_does_nothing(folder: Path) -> None:
    process(plan(folder, finishing), VALUES)
    assert not (folder / "search").exists()


def test_a_trial_that_is_over_is_not_run_again(folder: Path) -> None:
    record = run_trial(plan(folder, finishing), VALUES)
    assert run_trial(plan(folder, failing(ZeroDivisionError())), VALUES) == record


def test_tune_hears_of_every_evaluation_but_the_last(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trial_process, "LOOKING_SECONDS", 0.01)
    line = '{{"stage": "{}", "epoch": {}, "epochs": 4, "map": {}}}\n'
    lines = [("base", 1, 0.9), ("tuned", 1, 0.1), ("tuned", 2, "null"), ("tuned", 3, 0.3), ("tuned", 4, 0.4)]
    heard: list[tuple[int, float, list[float]]] = []
    all_heard = threading.Event()

    def slow(recipe: Recipe, _stages: Any) -> list[StageResult]:
        metrics = Path(recipe.storage) / recipe.name / "metrics.jsonl"
        metrics.write_text("".join(line.format(*values) for values in lines))
        all_heard.wait()
        return [result()]

    trial = process(plan(folder, slow, stopping={"stage": "tuned"}, objectives={"map": "maximise"}), VALUES)
    while not (told := trial.step())["done"]:
        heard.append((told["epoch"], told["map"], told["losses"]))
        if len(heard) == 2:
            all_heard.set()
    assert heard == [(1, 0.1, [-0.1]), (3, 0.3, [-0.3])]


def test_tune_hears_of_every_stage_that_begins_without_an_epoch_that_its_rules_would_look_at(folder: Path) -> None:
    def two_stages(recipe: Recipe, stages: Any) -> list[StageResult]:
        for stage in ("base", "tuned"):
            with stages.doing(stage, "key", folder / recipe.name, bool) as unfinished:
                assert unfinished == folder / recipe.name
        return [result()]

    trial = process(plan(folder, two_stages, share_stages=False), VALUES)
    assert [trial.step() for _ in range(2)] == [
        {"stage": stage, "map": 0.0, "done": False} for stage in ("base", "tuned")
    ]
    assert trial.step()["done"]


def test_weights_and_biases_get_a_run_a_trial_with_the_epochs_of_all_stages(folder: Path, wandb_home: Path) -> None:
    made = plan(folder, overrides=["tracking.wandb={mode: offline}"])
    plain = recipe_of(made.space, made.recipe, {})
    record = run_trial(replace(made, identity="abc", plain=plain), VALUES)
    written = records(folder / "search" / "trials" / record.id)
    (run,) = [one.run for one in written if one.WhichOneof("record_type") == "run"]
    assert (run.run_group, run.job_type, run.display_name) == ("tiny-search-abc", "trial", f"tiny-search/{record.id}")
    (told,) = configurations(folder / "search" / "trials" / record.id)
    assert told["recipe"]["dataset"] == made.recipe["dataset"]
    assert told["pruned.percent"] == VALUES["pruned.percent"]
    steps = [one.history.step.num for one in written if one.WhichOneof("record_type") == "history"]
    assert steps == [1, 2]
    assert not [one for one in written if one.WhichOneof("record_type") == "artifact"]
