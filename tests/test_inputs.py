"""What a recipe refers to is checked before anything starts, all mistakes at once."""

from pathlib import Path

import pytest
import tiny
from tiny_runs import prepare, recipe

from yolo_dist.errors import ConfigError
from yolo_dist.inputs import check
from yolo_dist.pipeline import run
from yolo_dist.recipe import Recipe

FIELDS = ["id", "kind", "map", "map50", "parameters", "macs", "weight_bytes", "latency_ms", "seconds", "cached"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A card, its shards and a cfg."""
    return prepare(tmp_path)


def problems_of(found: Recipe) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        check(found)
    assert caught.value.source == "tiny"
    return caught.value.problems


def test_a_good_recipe_passes_the_check_and_nothing_is_written(folder: Path) -> None:
    inputs = check(recipe(folder))
    assert (len(inputs.train), len(inputs.validation), inputs.card.name) == (12, 6, "tiny")
    assert not (folder / "runs").exists()


def test_the_check_lists_everything_that_is_missing(folder: Path) -> None:
    problems = problems_of(
        recipe(folder, dataset="nosuch", shards=str(folder / "nowhere"), storage="nosuch://bucket/runs")
    )
    assert len(problems) == 3
    assert "dataset nosuch: there is no such card" in problems[0]
    assert problems[1] == f"{folder}/nowhere: holds no converted split; run yolo-dist convert"
    assert problems[2].startswith("nosuch://bucket/runs: ")


@pytest.mark.parametrize(
    ("storage", "file"),
    [
        pytest.param("tiny.cfg", "tiny.cfg", id="the storage"),
        pytest.param("tiny.cfg/runs", "tiny.cfg", id="a folder above it"),
        pytest.param(".", "tiny", id="the run's folder"),
    ],
)
def test_the_check_names_a_file_that_is_in_the_way_of_the_run(folder: Path, storage: str, file: str) -> None:
    (folder / "tiny").touch()
    (problem,) = problems_of(recipe(folder, storage=str(folder / storage)))
    assert problem == f"{folder}/{file}: is a file, where a folder shall go; remove it or give another place"


def test_problems_found_elsewhere_are_told_with_those_of_the_check(folder: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        check(recipe(folder, shards="nowhere"), others=["cluster: too small"])
    assert [problem.rpartition(": ")[2] for problem in caught.value.problems] == [
        "holds no converted split; run yolo-dist convert",
        "too small",
    ]


def test_the_check_names_split_and_model_that_are_missing(folder: Path) -> None:
    found = recipe(folder, validation_split="test", model=str(folder / "nothing"))
    split, model = problems_of(found)
    assert split == f"{folder}/shards: split 'test' is not converted, it holds train, val; run yolo-dist convert"
    assert model.startswith(f"{folder}/nothing: no bundle.json there")


def test_the_check_names_a_missing_model_beside_an_unknown_dataset(folder: Path) -> None:
    dataset, model = problems_of(recipe(folder, dataset="nosuch", model=str(folder / "nothing.cfg")))
    assert dataset.startswith("dataset nosuch: there is no such card")
    assert model.startswith(f"{folder}/nothing.cfg: cannot be read")


def test_the_recipe_decides_on_the_input_size_of_any_cfg(folder: Path) -> None:
    (folder / "tiny.cfg").write_text(tiny.CFG.replace("width=64", "width=50"))
    check(recipe(folder))


def test_the_check_refuses_shards_of_other_classes(folder: Path) -> None:
    (folder / "tiny.yaml").write_text(tiny.CARD.replace("circle, square", "square, circle"))
    problems = problems_of(recipe(folder))
    assert len(problems) == 2
    for split, problem in zip(("train", "val"), problems, strict=True):
        assert f"shards/{split} has the classes circle, square, triangle, the card tiny has square, circle" in problem


def test_a_run_that_fails_its_check_writes_nothing(folder: Path) -> None:
    with pytest.raises(ConfigError):
        run(recipe(folder, dataset="nosuch"))
    assert not (folder / "runs").exists()


def _never(*_: object) -> None:
    pytest.fail("nothing was to be done")


def test_the_check_names_a_teacher_that_is_not_there(folder: Path) -> None:
    taught = {"id": "taught", "kind": "train", "epochs": 1, "distillation": {"teacher": str(folder / "nobody")}}
    (problem,) = problems_of(recipe(folder, stages=[taught]))
    assert problem.startswith(f"{folder}/nobody: no bundle.json there")


def test_the_check_names_a_stage_that_ends_before_its_ranges_freeze(folder: Path) -> None:
    """Twelve images in batches of 4, one a step: two epochs have six steps."""
    stage = {"id": "base", "kind": "train", "epochs": 2, "batch_size": 4, "nominal_batch": 4}
    fine, late = ({**stage, "quantization": {"freeze_ranges": step}} for step in (6, 7))
    assert check(recipe(folder, stages=[fine]))
    (problem,) = problems_of(recipe(folder, stages=[late]))
    assert problem == (
        "base: quantization: freeze_ranges is step 7, and the stage has only 6 optimizer steps; give a share of them "
        "up to 1, or train longer"
    )


def test_the_check_knows_whether_the_model_is_quantised(folder: Path) -> None:
    run(recipe(folder, stages=[{"id": "int8", "kind": "quantize", "calibration_images": 4}]))
    model = str(folder / "runs" / "tiny" / "stages" / "int8")
    problem = problems_of(recipe(folder, model=model, stages=[{"id": "again", "kind": "quantize"}]))
    assert problem == ["stages.0: kind quantize needs a float network, and what it starts from is quantised (again)"]
    problem = problems_of(recipe(folder, stages=[{"id": "file", "kind": "export", "format": "onnx-int8"}]))
    assert problem == ["stages.0: format onnx-int8 needs a quantised network, and what it starts from is float (file)"]
