"""Stages that trials have in common: run once, taken by the others, and gone on with where one was stopped."""

import json
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from searches import prepare
from tiny_runs import recipe, redone

from yolo_dist import lease, pipeline
from yolo_dist.bundle import open_bundle
from yolo_dist.errors import NonFiniteLoss
from yolo_dist.pipeline import run
from yolo_dist.storage import copy_folder, location
from yolo_dist.train.tracking import read_metrics
from yolo_dist.train.tracking.metrics_file import MetricsFile
from yolo_dist.tune.shared_stages import SharedStages


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return prepare(tmp_path_factory.mktemp("shared"))


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "SECONDS_BETWEEN_LOOKS", 0.02)


@pytest.fixture
def folder(prepared: Path, tmp_path: Path) -> Path:
    return shutil.copytree(prepared, tmp_path, dirs_exist_ok=True)


def shared(folder: Path) -> SharedStages:
    return SharedStages(location(folder / "shared"))


def test_a_second_trial_runs_only_what_is_its_own(folder: Path) -> None:
    assert redone(run(recipe(folder, "name=one"), stages=shared(folder))) == ["base", "pruned", "tuned"]
    second = run(recipe(folder, "name=two", "pruned.percent=0.3"), stages=shared(folder))
    assert redone(second) == ["pruned", "tuned"]
    assert second[0].seconds > 0


def test_what_was_taken_is_what_the_trial_would_have_made(folder: Path) -> None:
    run(recipe(folder, "name=one"), stages=shared(folder))
    run(recipe(folder, "name=two"), stages=shared(folder))
    alone = run(recipe(folder, "name=alone"))
    folders = [folder / "runs" / name for name in ("one", "two", "alone")]
    for stage in ("base", "pruned", "tuned"):
        weights = [(run / "stages" / stage / "model.weights").read_bytes() for run in folders]
        assert weights[0] == weights[1] == weights[2]
        assert open_bundle(folders[1] / "stages" / stage).stage["id"] == stage  # type: ignore[index]
    assert redone(alone) == ["base", "pruned", "tuned"]


def test_a_taken_stage_brings_the_lines_of_its_epochs(folder: Path) -> None:
    run(recipe(folder, "name=one"), stages=shared(folder))
    run(recipe(folder, "name=two", "pruned.percent=0.3"), stages=shared(folder))
    lines = [json.loads(line) for line in (folder / "runs" / "two" / "metrics.jsonl").read_text().splitlines()]
    assert [line["stage"] for line in lines] == ["base", "tuned"]


def test_who_takes_a_stage_over_has_the_epochs_before_too(folder: Path) -> None:
    def do(name: str, epochs: range, finish: bool) -> list[int]:
        trial = folder / "runs" / name
        target = trial / "stages" / "base"
        with shared(folder).doing("base", "key", location(trial), target.exists):
            if not target.exists():
                lines = MetricsFile(location(trial / "metrics.jsonl"), "base")
                for epoch in epochs:
                    lines.log({"epoch": epoch})
                if not finish:
                    raise KeyboardInterrupt
                target.mkdir(parents=True)
                (target / "stage.json").write_text("{}")
        return [line["epoch"] for line in read_metrics(location(trial / "metrics.jsonl"))]

    with pytest.raises(KeyboardInterrupt):
        do("dead", range(1, 6), finish=False)
    assert do("other", range(5, 9), finish=True) == [1, 2, 3, 4, 5, 6, 7, 8]  # from the checkpoint after epoch 4
    assert do("third", range(0), finish=True) == [1, 2, 3, 4, 5, 6, 7, 8]
    assert not list((folder / "shared" / "base" / "leases").glob("*.run"))


@pytest.mark.parametrize(("key", "trained"), [("key", ["one"]), ("another", ["one", "two"])])
def test_what_a_trial_finished_and_did_not_keep_before_it_died_is_taken_from_it(
    folder: Path, key: str, trained: list[str]
) -> None:
    did = []

    def do(name: str, finish: bool) -> None:
        target = folder / "runs" / name / "stages" / "base"

        def is_whole() -> bool:
            return target.exists() and json.loads((target / "stage.json").read_text())["key"] == "key"

        with shared(folder).doing("base", "key", location(folder / "runs" / name), is_whole):
            if not is_whole():
                did.append(name)
                target.mkdir(parents=True)
                (target / "stage.json").write_text(json.dumps({"key": "key" if finish else key}))
                if not finish:
                    raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        do("one", finish=False)
    do("two", finish=True)  # "one" goes on with the stage after it, without asking for this one
    do("three", finish=True)
    assert did == trained
    assert (folder / "shared" / "base" / "key" / "stage.json").exists()


def test_two_trials_at_the_same_time_run_the_same_stage_once(folder: Path) -> None:
    second_has_begun = threading.Event()

    def trial(name: str) -> bool:
        if name == "two":
            first_is_inside.wait()
            second_has_begun.set()
        target = folder / "runs" / name / "stages" / "base"
        with shared(folder).doing("base", "key", location(folder / "runs" / name), target.exists):
            if target.exists():
                return False
            first_is_inside.set()
            second_has_begun.wait()
            target.mkdir(parents=True)
            (target / "stage.json").write_text("{}")
            return True

    first_is_inside = threading.Event()
    with ThreadPoolExecutor(2) as threads:
        assert list(threads.map(trial, ("one", "two"))) == [True, False]


def test_who_was_taken_for_dead_keeps_the_stage_to_itself(folder: Path) -> None:
    """A store that stalls for long enough: the stage is done twice, and published by the one that has it now."""
    target = folder / "runs" / "one" / "stages" / "base"
    with shared(folder).doing("base", "key", location(folder / "runs" / "one"), target.exists):
        leases = folder / "shared" / "base" / "leases" / "key"
        (leases / "lease-2.json").write_text(lease.Holder(host="other-machine").model_dump_json())
        target.mkdir(parents=True)
        (target / "stage.json").write_text("{}")
    assert not (folder / "shared" / "base" / "key").exists()
    assert (target / "stage.json").exists()


def test_a_kept_stage_that_was_damaged_is_done_again_once_and_kept(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = run(recipe(folder, "name=one"), stages=shared(folder))
    (weights,) = (folder / "shared" / "base").glob("*/model.weights")
    content = weights.read_bytes()
    weights.write_bytes(content[:-1])  # the first trial's file too, which is the same on the disk
    capsys.readouterr()
    second = run(recipe(folder, "name=two"), stages=shared(folder))
    assert redone(second) == ["base"]
    assert capsys.readouterr().out.count("damaged, doing the stage again") == 1
    assert weights.read_bytes() == content
    third = run(recipe(folder, "name=three"), stages=shared(folder))
    assert redone(third) == []
    assert [result.map for result in third] == [result.map for result in first]


def test_what_was_kept_in_part_is_replaced(folder: Path) -> None:
    run(recipe(folder, "name=one"), stages=shared(folder))
    (record,) = (folder / "shared" / "base").glob("*/stage.json")
    record.unlink()
    assert redone(run(recipe(folder, "name=two"), stages=shared(folder))) == ["base"]
    assert record.exists()


def test_a_stage_that_fails_leaves_nothing_and_the_next_trial_does_it(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def explode(*_: Any) -> None:
        raise NonFiniteLoss("not a number")

    with monkeypatch.context() as patch:
        patch.setattr(pipeline, "prune_stage", explode)
        with pytest.raises(NonFiniteLoss):
            run(recipe(folder, "name=one"), stages=shared(folder))
    assert redone(run(recipe(folder, "name=two"), stages=shared(folder))) == ["pruned", "tuned"]


def test_a_copy_costs_no_space_and_does_not_change_with_the_original(tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / "last").write_text("first")
    copy_folder(location(tmp_path / "one"), location(tmp_path / "two"), "last")
    assert (tmp_path / "one" / "last").samefile(tmp_path / "two" / "last")
    shutil.rmtree(tmp_path / "one")
    assert (tmp_path / "two" / "last").read_text() == "first"
