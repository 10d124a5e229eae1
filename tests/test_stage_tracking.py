"""What the stages of a run give to trackers."""

import json
from pathlib import Path

import pytest
import wandb_log
from tiny_runs import prepare, recipe, stage_file
from upath import UPath

from yolo_dist.pipeline import run
from yolo_dist.stage_tracking import run_identity, shown_of
from yolo_dist.train.tracking import TrackingConfig, WandbConfig

KEY = "5ec2e7" * 7
OFFLINE = TrackingConfig(wandb=WandbConfig())
STAGES = [
    {"id": "base", "kind": "train", "epochs": 1},
    {"id": "small", "kind": "prune", "percent": 0.5, "force": True},
    {"id": "coarse", "kind": "quantize", "calibration_images": 4},
    {"id": "file", "kind": "export", "from": "small"},
]
TRACKING = {"wandb": {"project": "tests"}, "tensorboard": True}


@pytest.fixture(scope="module")
def tracked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tracked run of four kinds of stages, in an environment with a key."""
    import wandb

    folder = prepare(tmp_path_factory.mktemp("tracked"))
    with pytest.MonkeyPatch.context() as patch:
        for name in ("WANDB_DATA_DIR", "WANDB_CACHE_DIR", "WANDB_CONFIG_DIR"):
            patch.setenv(name, str(folder / "home"))
        patch.setenv("WANDB_API_KEY", KEY)
        wandb.teardown()
        run(recipe(folder, stages=STAGES, tracking=TRACKING))
    return folder


def test_every_stage_is_a_run_of_its_kind_in_one_group(tracked: Path) -> None:
    seen = wandb_log.runs(tracked / "runs" / "tiny")
    assert [(one.display_name, one.job_type) for one in seen] == [
        ("tiny/base", "train"),
        ("tiny/base", "train"),
        ("tiny/small", "prune"),
        ("tiny/coarse", "quantize"),
        ("tiny/file", "export"),
    ]
    identity = json.loads((tracked / "runs" / "tiny" / "tracking.json").read_text())["identity"]
    assert {one.run_group for one in seen} == {f"tiny-{identity}"}
    assert len({one.run_id for one in seen}) == 4
    assert seen[0].run_id == seen[1].run_id


def test_every_stage_leaves_its_files_as_an_artifact(tracked: Path) -> None:
    made = {one.name: {entry.path for entry in one.manifest.contents} for one in wandb_log.artifacts(runs_of(tracked))}
    bundle = {"model.cfg", "model.weights", "bundle.json"}
    assert made == {
        "tiny-base": bundle,
        "tiny-small": bundle,
        "tiny-coarse": bundle | {"quantization.safetensors"},
        "tiny-file": {"model.onnx", "export.json"},
    }


def test_every_stage_tells_what_its_run_is_about(tracked: Path) -> None:
    told = wandb_log.configurations(runs_of(tracked))
    assert [one["stage"] for one in told] == [
        {"id": "base", "kind": "train"},
        {"id": "base", "kind": "train"},
        {"id": "small", "kind": "prune"},
        {"id": "coarse", "kind": "quantize"},
        {"id": "file", "kind": "export"},
    ]
    (recipe_told,) = {json.dumps(one["recipe"], sort_keys=True): one["recipe"] for one in told}.values()
    assert recipe_told["dataset"] == str(tracked / "tiny.yaml")
    assert recipe_told["shards"] == str(tracked / "shards")
    assert recipe_told["model"]["cfg"] == str(tracked / "tiny.cfg")
    assert recipe_told["classes"] == ["circle", "square", "triangle"]
    assert (recipe_told["name"], recipe_told["image_size"], recipe_told["seed"]) == ("tiny", [64, 64], 0)
    assert recipe_told["cluster"]["workers"] == 0
    assert "batch_size" in recipe_told["evaluation"]


def test_how_a_store_is_reached_is_told_to_no_tracker(tmp_path: Path) -> None:
    store = {"endpoint": f"https://user:{KEY}@store"}
    told = shown_of(recipe(tmp_path, storage="s3://bucket/runs", object_store=store))
    assert told.keys() & {"stages", "storage", "object_store", "tracking"} == set()


def test_numbers_of_a_stage_are_those_of_its_files(tracked: Path) -> None:
    (artifact,) = [one for one in wandb_log.artifacts(runs_of(tracked)) if one.name == "tiny-small"]
    numbers = json.loads(artifact.metadata)
    result = json.loads(stage_file(tracked, "small", "stage.json").read_text())["result"]
    proof = json.loads(stage_file(tracked, "small", "proof.json").read_text())
    evaluation = json.loads(stage_file(tracked, "small", "evaluation.json").read_text())
    start = json.loads(stage_file(tracked, "base", "bundle.json").read_text())
    assert numbers["url"] == str(UPath(tracked / "runs" / "tiny" / "stages" / "small"))
    for name in ("parameters", "macs", "weight_bytes", "map", "map50", "latency_ms"):
        assert numbers[f"result/{name}"] == result[name], name
    assert numbers["result/per_class/circle/map50"] == evaluation["per_class"]["circle"]["map50"]
    assert numbers["before/map50"] == start["metrics"]["map50"]
    assert numbers["proof/parameters/before"] == proof["parameters"]["before"]


def test_every_stage_has_event_files(tracked: Path) -> None:
    assert {path.name for path in (runs_of(tracked) / "tensorboard").iterdir()} == {"base", "small", "coarse", "file"}


def test_the_key_is_in_no_file_of_the_run(tracked: Path) -> None:
    written = [path for path in tracked.rglob("*") if path.is_file()]
    assert len(written) > 60
    assert [path for path in written if KEY.encode() in path.read_bytes()] == []


def test_a_run_without_trackers_has_no_identity(tmp_path: Path) -> None:
    disabled = TrackingConfig(wandb=WandbConfig(mode="disabled"), tensorboard=True)
    assert [run_identity(UPath(tmp_path), config) for config in (TrackingConfig(), disabled)] == ["", ""]
    assert list(tmp_path.iterdir()) == []


def test_a_run_keeps_its_identity_and_shares_it_with_no_other(tmp_path: Path) -> None:
    one, other = UPath(tmp_path / "one"), UPath(tmp_path / "other")
    assert run_identity(one, OFFLINE) == run_identity(one, OFFLINE)
    assert run_identity(one, OFFLINE) != run_identity(other, OFFLINE)


def test_a_damaged_identity_is_made_anew(tmp_path: Path) -> None:
    (tmp_path / "tracking.json").write_text("{")
    made = run_identity(UPath(tmp_path), OFFLINE)
    assert len(made) == 6
    assert run_identity(UPath(tmp_path), OFFLINE) == made


def test_what_was_published_damaged_is_said_and_ends_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from yolo_dist import stage_tracking

    monkeypatch.setattr(stage_tracking, "EVALUATION_FILE", "gone.json")
    stages = [{"id": "base", "kind": "train", "epochs": 1}]
    run(recipe(prepare(tmp_path), stages=stages, tracking={"tensorboard": True}))
    assert "base: what it made was not tracked (" in capsys.readouterr().out


def runs_of(folder: Path) -> Path:
    return folder / "runs" / "tiny"
