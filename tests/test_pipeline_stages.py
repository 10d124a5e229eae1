"""What each kind of stage leaves in a run: pruned, quantised and exported ones."""

import json
from pathlib import Path

import pytest
import tiny
from tiny_runs import prepare, recipe, redone, stage_file

from yolo_dist import inputs
from yolo_dist.bundle import open_bundle, read_record
from yolo_dist.compress.pruning import make_plan
from yolo_dist.compress.quantization import QuantizationConfig, QuantizedNetwork
from yolo_dist.config import validate
from yolo_dist.data.shards import open_split
from yolo_dist.errors import ConfigError, QuantizationError
from yolo_dist.model import build_model
from yolo_dist.pipeline import run
from yolo_dist.recipe import PruneStage
from yolo_dist.train.calibration import calibration_losses

FIELDS = ["id", "kind", "map", "map50", "parameters", "macs", "weight_bytes", "latency_ms", "seconds", "cached"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A card, its shards and a cfg."""
    return prepare(tmp_path)


def test_an_export_stage_leaves_a_file_with_its_accuracy_size_and_speed(folder: Path) -> None:
    stages = [
        {"id": "base", "kind": "train", "epochs": 1},
        {"id": "file", "kind": "export"},
        {"id": "found", "kind": "export", "from": "base", "output": "detections"},
    ]
    base, exported, detections = run(recipe(folder, stages=stages))
    assert (exported.kind, exported.parameters, exported.macs) == ("export", base.parameters, base.macs)
    assert base.map is not None
    assert exported.map == pytest.approx(base.map, abs=1e-3) == detections.map
    record = json.loads(stage_file(folder, "file", "export.json").read_text())
    assert exported.weight_bytes == record["bytes"] == stage_file(folder, "file", "model.onnx").stat().st_size
    assert exported.latency_ms == record["latency_ms"]["1"] > 0
    assert record["bundle"] == read_record(stage_file(folder, "base", ""))[1]
    assert redone(run(recipe(folder, stages=stages))) == []
    stage_file(folder, "file", "model.onnx").write_bytes(b"damaged")
    assert redone(run(recipe(folder, stages=stages))) == ["file"]


def test_a_prune_stage_goes_by_the_importance_that_the_recipe_names(folder: Path) -> None:
    values = recipe(folder, "pruned.importance=taylor", "pruned.calibration_images=5", "pruned.percent=0.3")
    run(values)
    plan = json.loads(stage_file(folder, "pruned", "plan.json").read_text())
    start = open_bundle(stage_file(folder, "base", ""))
    losses = calibration_losses(open_split(folder / "shards", "train"), tiny.SIZE, 5)
    stage = values.stages[1]
    assert isinstance(stage, PruneStage)
    assert plan == make_plan(start.network, stage.settings(), losses).as_json()
    assert plan["importance"] == "taylor"


INT8 = {"per_channel": True, "calibration_images": 4}


def test_a_network_is_quantised_and_trained_on_as_stages(folder: Path) -> None:
    stages = [
        {"id": "base", "kind": "train", "epochs": 1},
        {"id": "int8", "kind": "quantize", **INT8},
        {"id": "trained", "kind": "train", "epochs": 1, "quantization": INT8},
        {"id": "kept", "kind": "train", "epochs": 1},
    ]
    results = run(recipe(folder, stages=stages))
    assert [(result.kind, result.latency_ms is None) for result in results] == [
        ("train", False),
        ("quantize", True),
        ("train", True),
        ("train", True),
    ]
    assert results[1].weight_bytes < results[0].weight_bytes / 2
    for result in results[1:]:
        bundle = open_bundle(stage_file(folder, result.id, ""))
        assert isinstance(bundle.network, QuantizedNetwork)
        assert bundle.network.config == validate(QuantizationConfig, {"per_channel": True}, "int8")
        noise = json.loads(stage_file(folder, result.id, "noise.json").read_text())
        assert [row["layer"] for row in noise["layers"]] == list(range(len(bundle.network.layers)))
    assert "Quantisation <span>int8</span>" in (folder / "runs" / "tiny" / "report.html").read_text()
    assert redone(run(recipe(folder, stages=stages))) == []


def test_a_network_that_is_quantised_in_another_way_than_a_stage_asks_for_is_refused(folder: Path) -> None:
    run(recipe(folder, stages=[{"id": "int8", "kind": "quantize", **INT8}]))
    model = str(stage_file(folder, "int8", ""))
    further = {"id": "next", "kind": "train", "epochs": 1, "quantization": {"weight_bits": 4}}
    with pytest.raises(QuantizationError, match=r"^the stage starts from a network that is quantised in another way"):
        run(recipe(folder, name="further", model=model, stages=[further]))


def test_the_record_of_a_stage_tells_the_batch_size_that_auto_came_to(folder: Path) -> None:
    stages = [{"id": "base", "kind": "train", "epochs": 1, "batch_size": "auto", "nominal_batch": 8}]
    run(recipe(folder, stages=stages))
    stage = open_bundle(folder / "runs" / "tiny" / "stages" / "base").stage
    assert stage is not None
    assert stage["config"]["batch_size"] == 8
    assert redone(run(recipe(folder, stages=stages))) == []


def distilled(teacher: str, **block: object) -> dict[str, object]:
    return {"id": "taught", "kind": "train", "epochs": 1, "distillation": {"teacher": teacher, **block}}


def test_a_pruned_network_learns_from_the_stage_it_was_cut_from(folder: Path) -> None:
    base, pruned = recipe(folder).model_dump(mode="json", by_alias=True, exclude_none=True)["stages"][:2]
    stages = [base, pruned, distilled("base")]
    run(recipe(folder, stages=stages))
    lines = [json.loads(line) for line in (folder / "runs" / "tiny" / "metrics.jsonl").read_text().splitlines()]
    (line,) = [line for line in lines if line["stage"] == "taught"]
    assert {"teacher scores", "teacher boxes", "teacher features"} < set(line["loss"])
    assert "teacher features" in (folder / "runs" / "tiny" / "report.html").read_text()
    assert redone(run(recipe(folder, stages=stages))) == []
    assert redone(run(recipe(folder, stages=[*stages[:2], distilled("base", temperature=2)]))) == ["taught"]


def test_a_stage_is_done_again_when_its_teacher_is_another_one_of_the_same_name(folder: Path) -> None:
    start = {"id": "base", "kind": "train", "epochs": 1}
    other = {"id": "other", "kind": "train", "epochs": 1, "from": "base"}
    stages = [start, other, {**distilled("other"), "from": "base"}]
    run(recipe(folder, stages=stages))
    assert redone(run(recipe(folder, "other.seed=5", stages=stages))) == ["other", "taught"]


def test_a_bundle_from_elsewhere_may_teach(folder: Path) -> None:
    run(recipe(folder, stages=[{"id": "base", "kind": "train", "epochs": 1}]))
    elsewhere = str(folder / "runs" / "tiny" / "stages" / "base")
    results = run(recipe(folder, name="pupil", stages=[distilled(elsewhere, strategy=3)]))
    assert [result.id for result in results] == ["taught"]


def test_a_teacher_with_other_heads_is_refused_before_the_first_stage(folder: Path) -> None:
    big = recipe(folder, name="big", model="yolov3-tiny", stages=[{"id": "base", "kind": "train", "epochs": 1}])
    bundle = build_model(big.model, inputs.check(big).card, inputs.check(big).train, big.image_size, seed=0)
    bundle.save(folder / "teacher")
    found = recipe(folder, stages=[{"id": "base", "kind": "train", "epochs": 1}, distilled(str(folder / "teacher"))])
    with pytest.raises(ConfigError, match=r"the student's heads are .*, those of .*teacher .* at stride 32"):
        run(found)
    assert not (folder / "runs" / "tiny" / "stages").exists()
