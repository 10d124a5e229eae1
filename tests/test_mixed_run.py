"""A whole run on a mixture of two datasets, each of which labels some of the classes."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import tiny
import tiny_mixture
import yaml
from tiny_mixture import JOINT

from yolo_dist.bundle import open_bundle
from yolo_dist.data.mixture import Mixture
from yolo_dist.errors import ConfigError
from yolo_dist.evaluate.metrics import Metrics
from yolo_dist.inputs import check
from yolo_dist.model import build_model
from yolo_dist.pipeline import run
from yolo_dist.recipe import Recipe, make_recipe
from yolo_dist.stage_cache import StageResult


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("prepared")
    tiny.write_cfg(folder)
    tiny_mixture.write_sources(folder)
    return folder


@pytest.fixture(scope="module")
def finished(prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = shutil.copytree(prepared, tmp_path_factory.mktemp("finished"), dirs_exist_ok=True)
    run(recipe(folder))
    return folder


@pytest.fixture
def folder(prepared: Path, tmp_path: Path) -> Path:
    """Two cards, their shards and a cfg."""
    return shutil.copytree(prepared, tmp_path, dirs_exist_ok=True)


@pytest.fixture
def done(finished: Path, tmp_path: Path) -> Path:
    """The same after a run of the recipe."""
    return shutil.copytree(finished, tmp_path, dirs_exist_ok=True)


def recipe(folder: Path, *overrides: str, **changes: Any) -> Recipe:
    return make_recipe(tiny_mixture.recipe_values(folder, **changes), "mixed.yaml", list(overrides))


def mixed(folder: Path, street: float, home: float) -> dict[str, Any]:
    return {"mix": {str(folder / "street.yaml"): street, str(folder / "home.yaml"): home}}


def redone(results: list[StageResult]) -> list[str]:
    return [result.id for result in results if not result.cached]


def problems_of(found: Recipe) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        check(found)
    return caught.value.problems


def test_a_run_trains_prunes_and_measures_every_dataset(done: Path) -> None:
    root = done / "runs" / "tiny"
    rows = json.loads((root / "results.json").read_text())
    assert [(row["id"], row["kind"]) for row in rows] == [("base", "train"), ("pruned", "prune"), ("tuned", "train")]
    for row in rows:
        bundle = open_bundle(root / "stages" / row["id"])
        assert bundle.classes == JOINT
        metrics = Metrics.model_validate_json((root / "stages" / row["id"] / "evaluation.json").read_bytes())
        assert metrics.images == 7
        assert {name: one.objects for name, one in metrics.per_class.items()} == {"square": 3, "disc": 7, "triangle": 4}
        street, home = metrics.sources["street"], metrics.sources["home"]
        assert (street.images, list(street.per_class)) == (3, ["square", "disc"])
        assert (home.images, list(home.per_class)) == (4, ["disc", "triangle"])
    assert json.loads((root / "stages" / "pruned" / "proof.json").read_text())["images"] == 7
    assert "By dataset" in (root / "report.html").read_text()


def test_pictures_of_all_datasets_are_drawn(done: Path) -> None:
    names = {path.stem for path in (done / "runs" / "tiny" / "stages" / "base" / "samples").glob("*.jpg")}
    assert names == {"000", "003", "001", "004", "002", "005"}


def test_a_second_run_and_the_recipe_as_resolved_do_no_work(done: Path) -> None:
    assert redone(run(recipe(done))) == []
    written = yaml.safe_load((done / "runs" / "tiny" / "recipe.yaml").read_text())
    assert redone(run(make_recipe(written, "recipe.yaml"))) == []


@pytest.mark.parametrize(
    ("street", "home", "expected"), [(3, 2, ["base", "pruned", "tuned"]), (6, 2, []), (0.75, 0.25, [])]
)
def test_other_shares_redo_everything_the_same_in_other_numbers_nothing(
    done: Path, street: float, home: float, expected: list[str]
) -> None:
    assert redone(run(recipe(done, dataset=mixed(done, street, home)))) == expected


def test_accuracy_on_every_dataset_is_followed_while_training(folder: Path) -> None:
    run(recipe(folder, stages=[{"id": "base", "kind": "train", "epochs": 2, "evaluate_every": 1}]))
    first, last = map(json.loads, (folder / "runs" / "tiny" / "metrics.jsonl").read_text().splitlines())
    assert list(first["sources"]) == ["street", "home"]
    assert all(list(own) == ["map", "map50"] for own in first["sources"].values())
    assert "sources" not in last


def test_the_check_opens_both_splits_as_mixtures(folder: Path) -> None:
    inputs = check(recipe(folder))
    assert isinstance(inputs.train, Mixture)
    assert (len(inputs.train), len(inputs.validation)) == (16, 7)
    assert inputs.train.weights == (0.75, 0.25)
    assert (inputs.card.name, inputs.card.classes, inputs.card.max_detections) == ("street+home", JOINT, 100)
    assert not (folder / "runs").exists()


def test_the_check_lists_what_is_wrong_with_every_dataset(folder: Path) -> None:
    shutil.rmtree(folder / "shards" / "street" / "val")
    home = folder / "home.yaml"
    home.write_text(home.read_text().replace("- circle\n- triangle", "- triangle\n- circle"))
    street, train, val, model = problems_of(recipe(folder, model=str(folder / "nothing.cfg")))
    assert street == f"{folder}/shards/street: split 'val' is not converted, it holds train; run yolo-dist convert"
    for split, problem in (("train", train), ("val", val)):
        assert f"home/{split} has the classes circle, triangle, the card home has triangle, circle" in problem
    assert model.startswith(f"{folder}/nothing.cfg: cannot be read")


def test_the_check_refuses_classes_that_cannot_be_joined(folder: Path) -> None:
    (folder / "street.yaml").write_text((folder / "street.yaml").read_text() + "aliases: {triangle: square}\n")
    (folder / "home.yaml").write_text((folder / "home.yaml").read_text().replace("disc: circle", "square: circle"))
    (problem,) = problems_of(recipe(folder))
    assert problem.startswith("mix: the classes circle and triangle of home would become one")


def test_the_check_refuses_two_cards_of_one_name(folder: Path) -> None:
    (folder / "home.yaml").write_text((folder / "home.yaml").read_text().replace("name: home", "name: street"))
    assert problems_of(recipe(folder))[-1] == "mix: two cards are called street; give one of them another name"


def test_a_model_must_have_the_joint_classes(folder: Path) -> None:
    (folder / "tiny.cfg").write_text(tiny.CFG.replace("classes=3", "classes=2").replace("filters=24", "filters=21"))
    (problem,) = problems_of(recipe(folder))
    assert "its heads have 2 classes, the dataset has 3" in problem


@pytest.mark.parametrize("agreed", [True, False])
def test_a_network_of_the_zoo_has_the_anchors_that_all_cards_agree_on(folder: Path, agreed: bool) -> None:
    published = "anchors: {6: '8,8 12,12 16,16 20,20 24,24 32,32'}\n"
    for name, other in (("street", ""), ("home", "" if agreed else "1")):
        path = folder / f"{name}.yaml"
        path.write_text(path.read_text() + published.replace("8,8", f"{other}8,8", 1))
    found = recipe(folder, model="yolov3-tiny")
    inputs = check(found)
    bundle = build_model(found.model, inputs.card, inputs.train, (64, 64), seed=0)
    anchors = sorted(anchor for head in bundle.network.heads for anchor in head.anchors.tolist())
    assert (anchors == [[8, 8], [12, 12], [16, 16], [20, 20], [24, 24], [32, 32]]) == agreed
