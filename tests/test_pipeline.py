"""The pipeline: runs a recipe once, and again only what changed."""

import json
import shutil
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from signal import SIGTERM

import pytest
import tiny
import yaml
from tiny_runs import prepare, recipe, redone, stage_file

from yolo_dist import pipeline
from yolo_dist.bundle import open_bundle, read_record
from yolo_dist.data.card import find_card
from yolo_dist.data.conversion.convert import ConvertConfig, convert
from yolo_dist.errors import ConfigError, Interrupted, ProofError, RunHeld
from yolo_dist.lease import Holder
from yolo_dist.pipeline import run
from yolo_dist.recipe import make_recipe
from yolo_dist.stages import StageContext, train_stage
from yolo_dist.storage import location
from yolo_dist.train.config import TrainConfig

FIELDS = ["id", "kind", "map", "map50", "parameters", "macs", "weight_bytes", "latency_ms", "seconds", "cached"]


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return prepare(tmp_path_factory.mktemp("prepared"))


@pytest.fixture(scope="module")
def finished(prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = shutil.copytree(prepared, tmp_path_factory.mktemp("finished"), dirs_exist_ok=True)
    run(recipe(folder))
    return folder


@pytest.fixture
def folder(prepared: Path, tmp_path: Path) -> Path:
    """A card, its shards and a cfg."""
    return shutil.copytree(prepared, tmp_path, dirs_exist_ok=True)


@pytest.fixture
def done(finished: Path, tmp_path: Path) -> Path:
    """The same after a run of the recipe."""
    return shutil.copytree(finished, tmp_path, dirs_exist_ok=True)


def test_a_run_leaves_the_results_of_every_stage(folder: Path) -> None:
    results = run(recipe(folder))
    rows = json.loads((folder / "runs" / "tiny" / "results.json").read_text())
    assert [list(row) for row in rows] == [FIELDS] * 3
    assert rows == [asdict(result) for result in results]
    assert [(row["id"], row["kind"], row["cached"]) for row in rows] == [
        ("base", "train", False),
        ("pruned", "prune", False),
        ("tuned", "train", False),
    ]
    base, pruned, tuned = rows
    assert pruned["parameters"] == tuned["parameters"] < base["parameters"]
    assert all(0 <= row["map"] <= row["map50"] <= 1 and row["latency_ms"] > 0 for row in rows)
    for row in rows:
        evaluation = json.loads(stage_file(folder, row["id"], "evaluation.json").read_text())
        assert (row["map"], row["map50"]) == (evaluation["map"], evaluation["map50"])
        assert row["weight_bytes"] == stage_file(folder, row["id"], "model.weights").stat().st_size
        bundle = open_bundle(stage_file(folder, row["id"], ""))
        assert row["parameters"] == sum(parameter.numel() for parameter in bundle.network.parameters())


def test_a_run_leaves_the_files_that_its_folder_promises_and_nothing_of_its_work(done: Path) -> None:
    root = done / "runs" / "tiny"
    assert sorted(path.name for path in root.iterdir()) == [
        "initial",
        "lease-1.json",
        "metrics.jsonl",
        "recipe.yaml",
        "report.html",
        "results.json",
        "stages",
    ]
    assert "The network before pruning" in (root / "report.html").read_text()
    proof = json.loads(stage_file(done, "pruned", "proof.json").read_text())
    assert proof["max_abs_difference"] <= proof["tolerance"]
    assert f"| mAP50 | {proof['map50']['before']:.3f} |" in stage_file(done, "pruned", "proof.md").read_text()
    assert json.loads(stage_file(done, "pruned", "plan.json").read_text())["method"] == "normal"
    assert len(list(stage_file(done, "base", "samples").glob("*.jpg"))) == 6
    assert [json.loads(line)["stage"] for line in (root / "metrics.jsonl").read_text().splitlines()] == [
        "base",
        "tuned",
    ]


def test_the_recipe_in_the_run_folder_runs_again_from_the_cache(done: Path) -> None:
    written = yaml.safe_load((done / "runs" / "tiny" / "recipe.yaml").read_text())
    assert redone(run(make_recipe(written, "recipe.yaml"))) == []


def test_data_and_run_may_move_to_another_folder_together(done: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    moved = done.rename(tmp_path_factory.mktemp("moved") / "elsewhere")
    assert redone(run(recipe(moved))) == []


def test_bundles_name_their_stage_and_the_bundle_they_came_from(done: Path) -> None:
    records = [read_record(done / "runs" / "tiny" / "initial")]
    records += [read_record(stage_file(done, stage, "")) for stage in ("base", "pruned", "tuned")]
    assert [record.stage and record.stage["id"] for record, _ in records] == ["initial", "base", "pruned", "tuned"]
    assert [record.parent for record, _ in records] == [None, *(fingerprint for _, fingerprint in records[:-1])]
    assert records[1][0].stage == {
        "id": "base",
        "kind": "train",
        "config": recipe(done).stages[0].settings().model_dump(mode="json"),
    }


def test_workers_that_find_no_room_are_refused_before_anything_is_written(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    with pytest.raises(ConfigError, match=r"^tiny: cluster\.workers: 4096 workers of 1 CPUs do not fit on 1 nodes"):
        run(recipe(folder, "cluster.workers=4096"))
    assert not (folder / "runs").exists()


def test_what_a_larger_machine_did_is_taken_from_the_cache_on_a_smaller_one(
    done: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    assert redone(run(recipe(done, "cluster.workers=4096"))) == []
    shutil.rmtree(done / "runs" / "tiny" / "stages" / "tuned")
    with pytest.raises(ConfigError, match="do not fit"):
        run(recipe(done, "cluster.workers=4096"))


def test_a_cluster_is_waited_for_as_nodes_may_join_it(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    monkeypatch.setattr(pipeline, "_run", lambda *_: [])
    assert run(recipe(folder, "cluster.workers=4096")) == []


def test_a_second_run_does_no_work_and_says_so(
    done: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before = json.loads((done / "runs" / "tiny" / "results.json").read_text())
    capsys.readouterr()
    for work in ("train_stage", "prune_stage"):
        monkeypatch.setattr(pipeline, work, _never)
    results = run(recipe(done))
    assert redone(results) == []
    assert [asdict(result) for result in results] == [row | {"cached": True} for row in before]
    said = capsys.readouterr()
    assert "tiny: nothing to do, all 3 stages are there" in said.out + said.err


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        pytest.param(["tuned.epochs=2"], ["tuned"], id="the last stage"),
        pytest.param(["pruned.percent=0.4"], ["pruned", "tuned"], id="the middle"),
        pytest.param(["pruned.importance=random"], ["pruned", "tuned"], id="what channels are worth"),
        pytest.param(["base.epochs=2"], ["base", "pruned", "tuned"], id="the first stage"),
        pytest.param(["seed=1"], ["base", "pruned", "tuned"], id="the first weights"),
        pytest.param(["image_size=96"], ["base", "pruned", "tuned"], id="the input's size"),
        pytest.param(["evaluation.nms_iou=0.5"], ["base", "pruned", "tuned"], id="how accuracy is measured"),
        pytest.param(["evaluation.batch_size=2"], [], id="how many images are evaluated at a time"),
        pytest.param(["base.checkpoint_every={minutes: 5}", "base.checkpoints_kept=1"], [], id="checkpoints"),
        pytest.param(["cluster.cpus_per_worker=2"], [], id="where it runs"),
    ],
)
def test_a_change_redoes_what_depends_on_it(done: Path, overrides: list[str], expected: list[str]) -> None:
    assert redone(run(recipe(done, *overrides))) == expected


def test_a_stage_added_at_the_end_redoes_only_itself(done: Path) -> None:
    stages = tiny.recipe_values(done)["stages"]
    results = run(recipe(done, stages=[*stages, {"id": "more", "kind": "train", "epochs": 1, "from": "base"}]))
    assert redone(results) == ["more"]
    assert results[-1].parameters == results[0].parameters


def test_converting_the_data_anew_redoes_everything_if_it_differs(done: Path) -> None:
    card = find_card(str(done / "tiny.yaml"))
    again = ConvertConfig(overwrite=True)
    convert(card, "-", done / "shards", "val", again)
    assert redone(run(recipe(done))) == []
    (done / "tiny.yaml").write_text(tiny.CARD.replace("seed: 2", "seed: 3"))
    convert(find_card(str(done / "tiny.yaml")), "-", done / "shards", "val", again)
    assert redone(run(recipe(done))) == ["base", "pruned", "tuned"]


def test_new_published_anchors_redo_a_network_of_the_zoo(folder: Path) -> None:
    values = {"model": {"zoo": "yolov3-tiny", "width": 0.1}, "stages": [{"id": "base", "kind": "train", "epochs": 1}]}
    run(recipe(folder, **values))
    assert redone(run(recipe(folder, **values))) == []
    (folder / "tiny.yaml").write_text(tiny.CARD + "anchors: {6: '8,8 12,12 16,16 20,20 24,24 32,32'}\n")
    assert redone(run(recipe(folder, **values))) == ["base"]


def flip_weights(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        pytest.param("model.weights", flip_weights, id="a flipped byte in the weights"),
        pytest.param("model.cfg", Path.unlink, id="no cfg"),
        pytest.param("bundle.json", Path.unlink, id="no record"),
        pytest.param("evaluation.json", Path.unlink, id="no evaluation"),
        pytest.param("evaluation.json", lambda path: path.write_text("{}"), id="no metrics in the evaluation"),
        pytest.param("stage.json", Path.unlink, id="no key"),
        pytest.param("stage.json", lambda path: path.write_text('{"key"'), id="half a key"),
        pytest.param("stage.json", lambda path: path.write_text("[]"), id="a key of another shape"),
    ],
)
def test_a_damaged_stage_is_done_again_and_comes_out_the_same(
    done: Path, name: str, damage: Callable[[Path], object]
) -> None:
    weights = stage_file(done, "base", "model.weights").read_bytes()
    damage(stage_file(done, "base", name))
    assert redone(run(recipe(done))) == ["base"]
    assert open_bundle(stage_file(done, "base", ""))
    assert stage_file(done, "base", "model.weights").read_bytes() == weights


@pytest.mark.parametrize("name", ["model.weights", "bundle.json"])
def test_damaged_first_weights_are_made_again(done: Path, name: str) -> None:
    path = done / "runs" / "tiny" / "initial" / name
    before = path.read_bytes()
    path.write_bytes(before[:-1])
    assert redone(run(recipe(done))) == []
    assert path.read_bytes() == before


def test_an_interrupted_run_keeps_what_is_done_and_goes_on(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*_: object) -> None:
        raise ProofError("planted")

    with monkeypatch.context() as patched:
        patched.setattr(pipeline, "prune_stage", stop)
        with pytest.raises(ProofError, match="planted"):
            run(recipe(folder))
    root = folder / "runs" / "tiny"
    assert [path.name for path in (root / "stages").iterdir()] == ["base"]
    assert not list((root / "work").glob("*"))
    assert [row["id"] for row in json.loads((root / "results.json").read_text())] == ["base"]
    assert redone(run(recipe(folder))) == ["pruned", "tuned"]
    assert not (root / "work").exists()
    assert not (root / "checkpoints").exists()


def test_a_changed_recipe_that_fails_leaves_no_rows_of_the_old_one(done: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*_: object) -> None:
        raise ProofError("planted")

    root = done / "runs" / "tiny"
    monkeypatch.setattr(pipeline, "prune_stage", stop)
    with pytest.raises(ProofError, match="planted"):
        run(recipe(done, "pruned.percent=0.25"))
    assert [row["id"] for row in json.loads((root / "results.json").read_text())] == ["base"]
    assert "percent: 0.25" in (root / "recipe.yaml").read_text()
    monkeypatch.undo()
    assert redone(run(recipe(done))) == []


def test_a_run_interrupted_while_publishing_leaves_no_half_stage(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("yolo_dist.stages.shutil.copytree", stop)
        with pytest.raises(KeyboardInterrupt):
            run(recipe(folder))
    assert not list((folder / "runs" / "tiny" / "stages").glob("*"))
    assert redone(run(recipe(folder))) == ["base", "pruned", "tuned"]


def test_checkpoints_stay_until_their_stage_is_published(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def train_with_checkpoint(context: StageContext, config: TrainConfig) -> None:
        train_stage(context, config)
        (context.checkpoints / context.name).mkdir(parents=True, exist_ok=True)

    def stop(*_: object) -> None:
        raise ProofError("planted")

    checkpoints = folder / "runs" / "tiny" / "checkpoints"
    monkeypatch.setattr(pipeline, "train_stage", train_with_checkpoint)
    for step, left in (("collect", 1), ("prune_stage", 0)):
        with monkeypatch.context() as patched:
            patched.setattr(pipeline, step, stop)
            with pytest.raises(ProofError, match="planted"):
                run(recipe(folder))
        assert len(list(checkpoints.iterdir())) == left


def test_a_run_whose_folder_was_taken_over_meanwhile_leaves_it_alone(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = folder / "runs" / "tiny"
    of_the_other = root / "checkpoints" / "of-the-other" / "state.safetensors"

    def taken_over(context: StageContext, config: TrainConfig) -> None:
        train_stage(context, config)
        of_the_other.parent.mkdir(parents=True)
        of_the_other.touch()
        (root / "lease-2.json").write_text(Holder(host="other-machine", user="ann").model_dump_json())

    monkeypatch.setattr(pipeline, "train_stage", taken_over)
    with pytest.raises(RunHeld, match="is being written by ann on other-machine"):
        run(recipe(folder))
    assert not (root / "stages").exists()
    assert of_the_other.exists()


def test_first_weights_of_a_bundle_have_no_accuracy_of_elsewhere(done: Path) -> None:
    """A proof compares with what was measured on this run's images, or with nothing."""
    start = done / "start"
    replace(open_bundle(done / "runs/tiny/stages/tuned"), metrics={"map": 0.9, "map50": 0.99}).save(start)
    stage = {"id": "pruned", "kind": "prune", "force": True}
    run(recipe(done, model={"bundle": str(start)}, name="from-a-bundle", stages=[stage]))
    assert open_bundle(done / "runs/from-a-bundle/initial").metrics is None


def test_a_stopped_training_with_other_settings_is_told_to_begin_anew(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def stopped(context: StageContext, _: TrainConfig) -> None:
        (context.checkpoints / context.name / "step-000000001").mkdir(parents=True, exist_ok=True)
        raise Interrupted(SIGTERM, "in a plan")

    with monkeypatch.context() as patched:
        patched.setattr(pipeline, "train_stage", stopped)
        for _ in range(2):
            with pytest.raises(Interrupted):
                run(recipe(folder))
    assert "begins anew" not in capsys.readouterr().out
    run(recipe(folder, "base.optimizer.momentum=0.5"))
    assert "base: begins anew, for checkpoints in " in capsys.readouterr().out


def test_a_run_lives_under_a_url_as_it_does_on_disk(folder: Path) -> None:
    storage = f"memory://runs/{folder.name}"
    assert redone(run(recipe(folder, storage=storage))) == ["base", "pruned", "tuned"]
    assert redone(run(recipe(folder, "tuned.epochs=2", storage=storage))) == ["tuned"]
    root = location(storage) / "tiny"
    assert (root / "report.html").exists()
    assert open_bundle(root / "stages" / "tuned").stage is not None
    assert not (root / "work").exists()


def _never(*_: object) -> None:
    pytest.fail("nothing was to be done")
