"""Whole searches on Ray: every trial's end is known, and a search that was interrupted goes on."""

import json
import os
import shutil
import signal
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from ray import cloudpickle
from searches import prepare, record, space

from yolo_dist import ray_cluster
from yolo_dist.config import read_yaml
from yolo_dist.errors import ConfigError, Interrupted, NonFiniteLoss, StorageError
from yolo_dist.lease import hold, last_sign
from yolo_dist.pipeline import run
from yolo_dist.ray_tasks import run_tasks
from yolo_dist.recipe import Recipe, read_recipe
from yolo_dist.run_folders import list_runs
from yolo_dist.stage_cache import StageResult
from yolo_dist.storage import location
from yolo_dist.tune import search as search_module
from yolo_dist.tune.export import export_trial
from yolo_dist.tune.pauses import read_pauses
from yolo_dist.tune.record import TrialRecord, read_records
from yolo_dist.tune.search import check_search, search
from yolo_dist.tune.space import read_space, trial_id

PERCENTS = {"pruned.percent": {"grid": [0.1, 0.2, 0.3, 0.4]}}


@pytest.fixture(scope="module", autouse=True)
def known_to_workers() -> Iterator[None]:
    """Trials' stubs travel with their code: other processes do not find this module."""
    module = sys.modules[__name__]
    cloudpickle.register_pickle_by_value(module)
    yield
    cloudpickle.unregister_pickle_by_value(module)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return prepare(tmp_path_factory.mktemp("search"))


@pytest.fixture
def folder(prepared: Path, tmp_path: Path) -> Path:
    shutil.copytree(prepared, tmp_path, dirs_exist_ok=True)
    text = (tmp_path / "recipe.yaml").read_text().replace(str(prepared), str(tmp_path))
    (tmp_path / "recipe.yaml").write_text(text)
    return tmp_path


def quick(recipe: Recipe, _stages: Any) -> list[StageResult]:
    """A trial without training: the more is cut, the less accurate; a cut of 0.4 fails, and each run leaves a line."""
    percent = recipe.stages[1].percent  # type: ignore[union-attr]
    with (Path(recipe.storage).parent / "runs.txt").open("a") as runs:
        runs.write(f"{percent}\n")
    if percent == 0.4:
        raise NonFiniteLoss("loss is not finite")
    return [StageResult("tuned", "train", 0.1, 1 - percent, int(1000 * (1 - percent)), 5, 4, 3.0, 2.0, False)]


def test_a_search_runs_every_trial_and_records_the_one_that_fails(
    folder: Path, ray_session: None, capsys: pytest.CaptureFixture[str]
) -> None:
    results = search(space(folder, space=PERCENTS), run=quick)
    root = folder / "searches" / "tiny-search"
    states = {record.values["pruned.percent"]: (record.state, record.reason) for record in results.trials}
    assert states.pop(0.4) == ("failed", "loss is not finite")
    assert states == dict.fromkeys((0.1, 0.2, 0.3), ("finished", None))
    assert len(results.front) == 3
    assert json.loads((root / "tune.json").read_text()) == results.model_dump(mode="json")
    assert "3 trade-offs that no other trial beats" in (root / "tune.html").read_text()
    said = capsys.readouterr().out
    assert " begins (pruned.percent 0." in said.splitlines()[0]
    assert "4 of 4 trials, 1 failed, 3 on the front, best so far" in said
    assert said.count(" left\n") == 2, "the first says nothing of the others, and after the last none is left"


def test_a_search_goes_on_without_doing_again_what_is_over(folder: Path, ray_session: None) -> None:
    with (folder / "recipe.yaml").open("a") as recipe:
        recipe.write("evaluation: {confidence: 0.00001}\n")  # in JSON 1e-05, which is no number in YAML
    search(space(folder, space=PERCENTS, trials=2), run=quick)
    root = folder / "searches" / "tiny-search"
    assert read_yaml(root / "recipe.yaml") == read_yaml(folder / "recipe.yaml")
    interrupted = {"pruned.percent": 0.4}  # what a driver that was killed left running
    TrialRecord(id=trial_id(interrupted), values=interrupted, state="running", began=1.0).save(location(root))
    results = search(space(folder, space=PERCENTS, trials=4), resume=True, run=quick)
    assert sorted(float(line) for line in (root / "runs.txt").read_text().split()) == [0.1, 0.2, 0.3, 0.4]
    assert [record.state for record in results.trials].count("finished") == 3
    again = search(space(folder, space=PERCENTS, trials=4), resume=True, run=quick)
    assert again == results


def test_trials_share_the_stages_they_agree_on_and_one_can_be_taken_out(
    folder: Path, ray_session: None, capsys: pytest.CaptureFixture[str]
) -> None:
    results = search(space(folder, space={"pruned.percent": {"grid": [0.3, 0.5]}}))
    said = capsys.readouterr().out
    for one in results.trials:
        assert [f"{one.id}: {stage} …\n" in said for stage in ("base", "pruned", "tuned")] == [True] * 3
    assert [record.state for record in results.trials] == ["finished", "finished"]
    assert (results.stages_run, results.stages_taken) == (5, 1)
    root = folder / "searches" / "tiny-search"
    assert sorted(path.name for path in (root / "shared" / "tuned").iterdir() if path.is_dir()) == sorted(
        json.loads((root / "trials" / record.id / "stages" / "tuned" / "stage.json").read_text())["key"][:16]
        for record in results.trials
    )
    target = export_trial(space(folder), "knee")
    assert (target / "model" / "model.weights").exists()


def interrupting(recipe: Recipe, _stages: Any) -> list[StageResult]:
    """A trial in the middle of which the search's own process is told to end, once."""
    asked = Path(recipe.storage).parent / "asked.json"
    if recipe.stages[1].percent == 0.2 and asked.exists():  # type: ignore[union-attr]
        os.kill(*json.loads(asked.read_text()))
        asked.unlink()
        threading.Event().wait()
    return quick(recipe, _stages)


@pytest.mark.parametrize("asked", [signal.SIGINT, signal.SIGTERM])
def test_a_search_that_is_told_to_end_says_where_it_is_and_goes_on(
    folder: Path, ray_session: None, capfd: pytest.CaptureFixture[str], asked: int
) -> None:
    one = space(folder, space={"pruned.percent": {"grid": [0.1, 0.2, 0.3]}}, concurrent=1)
    root = folder / "searches" / "tiny-search"
    root.mkdir(parents=True)
    (root / "asked.json").write_text(json.dumps([os.getpid(), asked]))
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    name = signal.Signals(asked).name
    with pytest.raises(Interrupted, match=f"stopped by {name} after 1 of 3 trials; --resume goes on") as error:
        search(one, run=interrupting)
    assert error.value.exit_code == 128 + asked
    assert f"{name}: ending; once more ends it at once\n" in capfd.readouterr().err
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before
    assert {record.values["pruned.percent"]: record.state for record in read_records(location(root))} == {
        0.1: "finished",
        0.2: "running",
    }
    assert (root / "tune.html").exists()
    results = search(one, resume=True, run=interrupting)
    assert [record.state for record in results.trials] == ["finished"] * 3
    assert sorted((root / "runs.txt").read_text().split()) == ["0.1", "0.2", "0.3"]
    ((stopped, again),) = read_pauses(location(root))
    first, second, _ = results.trials
    assert first.ended is not None
    assert second.ended is not None
    assert first.ended < stopped < again < second.ended
    assert results.hypervolume[1].seconds == pytest.approx(second.ended - first.began - (again - stopped), abs=0.1)


def answered_by_ray(number: int, _frame: Any) -> None:
    sys.exit(number)


@pytest.mark.parametrize("asked", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("heard_by", ["us", "Ray"])
def test_a_search_that_is_told_to_end_while_ray_starts_says_that_it_goes_on(
    folder: Path, monkeypatch: pytest.MonkeyPatch, asked: int, heard_by: str
) -> None:
    def starting(*_args: Any, **_options: Any) -> None:
        if heard_by == "Ray":
            signal.signal(signal.SIGTERM, answered_by_ray)
        signal.raise_signal(asked)

    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    answer = signal.signal(signal.SIGUSR1, signal.SIG_DFL)  # of Tune, where another test has begun it
    monkeypatch.setattr(search_module, "join_cluster", starting)
    name = signal.Signals(asked).name
    with pytest.raises(Interrupted, match=f"stopped by {name} after 0 of 4 trials; --resume goes on") as error:
        search(space(folder))
    assert error.value.exit_code == 128 + asked
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before
    assert (folder / "searches" / "tiny-search" / "tune.html").exists()
    signal.signal(signal.SIGUSR1, answer)


def away_at_first(recipe: Recipe, _stages: Any) -> list[StageResult]:
    """A trial that finds its store away, and at the second attempt there."""
    attempted = Path(recipe.storage).parent / "attempted.txt"
    if not attempted.exists():
        attempted.touch()
        raise StorageError("s3://runs: cannot be reached")
    return [StageResult("tuned", "train", 0.1, 0.5, 9, 5, 4, 3.0, 2.0, False)]


def test_a_trial_goes_on_by_itself_when_the_store_is_back(folder: Path, ray_session: None) -> None:
    one = space(folder, space={"pruned.percent": {"grid": [0.1]}}, max_failures=1)
    (record,) = search(one, run=away_at_first).trials
    assert (record.state, record.reason) == ("finished", None)


def test_a_trial_that_the_store_was_away_for_too_often_is_tried_again_on_resume(
    folder: Path, ray_session: None, capsys: pytest.CaptureFixture[str]
) -> None:
    one = space(folder, space={"pruned.percent": {"grid": [0.1]}}, max_failures=0)
    (lost,) = search(one, run=away_at_first).trials
    assert (lost.state, lost.reason, lost.lost) == ("failed", "s3://runs: cannot be reached", True)
    assert "0 of 1 trials are over; --resume goes on with the others" in capsys.readouterr().out
    (record,) = search(one, resume=True, run=away_at_first).trials
    assert (record.state, record.reason, record.lost) == ("finished", None, False)


def product(one: int, other: int) -> int:
    return one * other


def with_tasks(recipe: Recipe, _stages: Any) -> list[StageResult]:
    """A trial that has its cuts measured by tasks, as pruning does."""
    counts = [result for _, result in run_tasks(product, 3, [3], workers=1, option="cluster.workers")]
    return [StageResult("tuned", "train", 0.1, 0.5, counts[0], 5, 4, 3.0, 2.0, False)]


def test_tasks_of_a_trial_find_a_core_outside_its_process(folder: Path, ray_session: None) -> None:
    one = space(folder, space={"pruned.percent": {"grid": [0.1]}}, overrides=["cluster.workers=1"])
    (record,) = search(one, run=with_tasks).trials
    assert (record.reason, record.measured.get("parameters")) == (None, 9)


def watched(recipe: Recipe, _stages: Any) -> list[StageResult]:
    """A trial whose accuracy is known after its first epoch: what cuts more is worse, and would never end."""
    import time

    percent = recipe.stages[1].percent  # type: ignore[union-attr]
    metrics = Path(recipe.storage) / recipe.name / "metrics.jsonl"
    rows = [
        {"id": "base", "cached": True, "seconds": 1, "parameters": 9},
        {"id": "pruned", "cached": False, "seconds": 1, "parameters": 5},
    ]
    metrics.with_name("results.json").write_text(json.dumps(rows))
    line = {"stage": "tuned", "epoch": 1, "epochs": 4, "map": 1 - percent, "map50": 1 - percent}
    metrics.write_text(json.dumps(line) + "\n")
    time.sleep(2 if percent == 0.1 else 600)
    return [StageResult("tuned", "train", 0.9, 0.9, 9, 5, 4, 3.0, 2.0, False)]


def test_a_trial_that_falls_behind_is_stopped_and_known_as_such(folder: Path, ray_session: None) -> None:
    falling = space(
        folder,
        space={"pruned.percent": {"grid": [0.1, 0.4]}},
        overrides=["tuned.epochs=4"],
        stopping={"reduction": 2},
        concurrent=1,
    )
    best, stopped = search(falling, run=watched).trials
    assert (best.state, best.values) == ("finished", {"pruned.percent": 0.1})
    assert (stopped.state, stopped.reason) == ("stopped", "fell behind after epoch 1")
    assert stopped.epoch == 1
    assert stopped.map == pytest.approx(0.6)
    assert stopped.measured == pytest.approx({"map": 0.6, "map50": 0.6, "parameters": 5})


@pytest.fixture
def begun(folder: Path) -> Path:
    """A search of which nothing is left but what it was."""
    root = folder / "searches" / "tiny-search"
    root.mkdir(parents=True)
    (root / "space.yaml").write_text(space(folder).to_yaml())
    (root / "recipe.yaml").write_text((folder / "recipe.yaml").read_text())
    return folder


def test_a_search_is_not_mixed_with_the_one_before(begun: Path) -> None:
    with pytest.raises(ConfigError, match=r"holds a search; go on with --resume, or give another name=…"):
        search(space(begun))


def test_a_refused_command_leaves_no_sign_that_would_end_a_pause(begun: Path) -> None:
    root = location(begun / "searches" / "tiny-search")
    with hold(root, print):
        pass
    interrupted = last_sign(root)
    with pytest.raises(ConfigError):
        search(space(begun))
    with pytest.raises(ConfigError):
        search(space(begun, stage="pruned"), resume=True)
    assert last_sign(root) == interrupted


def test_a_search_and_a_run_of_one_name_are_not_mixed(begun: Path) -> None:
    root = begun / "searches" / "tiny-search"
    with pytest.raises(ConfigError, match=r"holds a search; give the run another name or storage"):
        run(read_recipe(str(begun / "recipe.yaml"), ["name=tiny-search", f"storage={begun}/searches"]))
    assert list_runs(location(begun / "searches")) == []
    (root / "space.yaml").unlink()
    with pytest.raises(ConfigError, match=r"holds a run; give the search another name=… or storage=…"):
        search(space(begun))


def test_a_search_that_ended_before_its_recipe_was_written_goes_on(begun: Path, ray_session: None) -> None:
    (begun / "searches" / "tiny-search" / "recipe.yaml").unlink()
    assert len(search(space(begun), resume=True, run=quick).trials) == 4


def test_another_search_is_not_gone_on_with(begun: Path) -> None:
    (begun / "recipe.yaml").write_text((begun / "recipe.yaml").read_text() + "seed: 5\n")
    with pytest.raises(ConfigError) as refused:
        search(space(begun, space=PERCENTS), resume=True)
    assert [problem.partition(":")[0] for problem in refused.value.problems] == ["space", "recipe"]


def test_more_workers_than_there_are_and_missing_data_are_told_together(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray_cluster, "resources_of_nodes", lambda: [{"CPU": 2.0}])
    overrides = ["cluster.workers=3", "cluster.gpus_per_worker=1", "shards=nowhere"]
    with pytest.raises(ConfigError) as refused:
        check_search(space(folder, overrides=overrides, storage=str(folder / "tiny.cfg")), "space.yaml")
    *data, storage, workers = refused.value.problems
    assert storage == f"{folder}/tiny.cfg: is a file, where a folder shall go; remove it or give another place"
    assert data
    assert all("nowhere" in problem for problem in data)
    assert workers.startswith("cluster.workers: 3 workers of 1 CPUs and 1 GPUs do not fit on 1 nodes of up to 2 CPUs")


def test_four_mistakes_of_four_kinds_are_told_at_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_cluster, "resources_of_nodes", lambda: [{"CPU": 4.0}, {"CPU": 4.0}])
    values = yaml.safe_load(space(folder).to_yaml()) | {
        "space": {"pruned.percnt": {"grid": [0.1]}, "base.optimizer.learning_rate": {"loguniform": [0, 1]}},
        "objectives": {"map5": "maximise"},
        "overrides": ["cluster.workers=2", "cluster.cpus_per_worker=8"],
        "searcher": "random",
        "trials": 2,
    }
    (folder / "space.yaml").write_text(yaml.safe_dump(values))
    with pytest.raises(ConfigError) as refused:
        read_space(str(folder / "space.yaml"), others=check_search)
    bounds, objective, path, workers = refused.value.problems
    assert bounds == "space.base.optimizer.learning_rate: loguniform needs a low end above 0, not 0"
    assert objective.startswith("objectives.map5")
    assert path.startswith("space.pruned.percnt: stages.1.percnt: unknown key")
    assert workers.startswith("cluster.workers: 2 workers of 8 CPUs do not fit on 2 nodes of up to 4 CPUs")


@pytest.mark.parametrize(
    ("trial", "problem"),
    [
        ("nope", "there is no trial nope; finished ones are done"),
        ("bad", "trial bad is failed: no; export a finished one"),
    ],
)
def test_only_a_finished_trial_is_exported(begun: Path, trial: str, problem: str) -> None:
    root = location(begun / "searches" / "tiny-search")
    common: dict[str, Any] = {"values": {}, "began": 1.0, "ended": 2.0}
    TrialRecord(id="done", state="finished", measured={"map50": 1.0, "parameters": 1.0}, **common).save(root)
    TrialRecord(id="bad", state="failed", reason="no", **common).save(root)
    assert len(read_records(root)) == 2
    with pytest.raises(ConfigError, match=problem):
        export_trial(space(begun), trial)


def test_no_knee_is_exported_where_all_trials_lie_outside_the_limits(begun: Path) -> None:
    root = begun / "searches" / "tiny-search"
    (root / "space.yaml").write_text(space(begun, constraints={"parameters": {"most": 10}}).to_yaml())
    record("aaaa", 0.5, 900).save(location(root))
    problem = "there is no trial knee, for none lies within the constraints; finished ones are aaaa"
    with pytest.raises(ConfigError, match=problem):
        export_trial(space(begun), "knee")


def test_what_is_exported_is_what_was_searched_whatever_the_file_says_since(begun: Path) -> None:
    root = begun / "searches" / "tiny-search"
    searched = space(begun, overrides=["tuned.epochs=7"], constraints={"parameters": {"most": 400}}, stage="pruned")
    (root / "space.yaml").write_text(searched.to_yaml())
    for made in (record("accurate", 0.8, 500), record("small", 0.6, 200)):
        made.save(location(root))
        model = root / "trials" / made.id / "stages" / "pruned"
        model.mkdir(parents=True)
        (model / "stage.json").write_text("{}")
    target = export_trial(space(begun), "knee")
    assert target.name == "small"
    assert read_recipe(str(target / "recipe.yaml")).stages[-1].epochs == 7  # type: ignore[union-attr]


def test_what_lies_where_a_trial_is_exported_to_is_left_alone(begun: Path) -> None:
    record("small", 0.6, 200).save(location(begun / "searches" / "tiny-search"))
    (begun / "mine").mkdir()
    (begun / "mine" / "recipe.yaml").write_text("mine")
    with pytest.raises(ConfigError, match=r"holds another recipe\.yaml; give an empty folder"):
        export_trial(space(begun), "small", begun / "mine")
    assert (begun / "mine" / "recipe.yaml").read_text() == "mine"


def test_nothing_is_exported_where_nothing_was_searched(folder: Path) -> None:
    with pytest.raises(ConfigError, match="no search lies in"):
        export_trial(space(folder), "knee")
