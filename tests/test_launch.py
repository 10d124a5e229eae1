"""The recipes that come along, checked by `run --check` against real files of their datasets."""

from pathlib import Path

import pytest
from oxford_hand import write_hands
from typer.testing import CliRunner

from yolo_dist.cli.app import app
from yolo_dist.compress.distillation import STRATEGIES
from yolo_dist.compress.pruning.method import METHODS
from yolo_dist.data.card import find_card
from yolo_dist.data.conversion.convert import ConvertConfig, convert
from yolo_dist.recipe import read_recipe

LAUNCH = Path(__file__).parents[1] / "launch"

SAMPLES = {
    "bccd": ("bccd", "train", "val"),
    "bccd-distillation": ("bccd", "train", "val"),
    "bccd-pruning": ("bccd", "train", "val"),
    "bccd-pruning-mobilenet": ("bccd", "train", "val"),
    "bccd-quantization": ("bccd", "train", "val"),
    "bdd100k": ("bdd100k", "train", "train"),
    "coco": ("coco", "train", "val"),
    "dior": ("dior", "train", "test"),
    "hand": ("hand", "train", "val"),
    "visdrone": ("visdrone", "val", "val"),
}
"""For each recipe the folder of the sample, and splits of which it has images to train on and to validate with."""


NO_WORKERS = ["cluster.workers=0"]
"""The machines that recipes are for have more room for workers than the one that tests them."""


def test_every_dataset_to_download_has_a_recipe() -> None:
    assert {path.stem for path in LAUNCH.glob("*.yaml")} == {*SAMPLES, "shapes", "visdrone-coco"}


@pytest.mark.parametrize("name", SAMPLES)
def test_a_recipe_passes_the_check_on_converted_data(name: str, shared_data: Path, tmp_path: Path) -> None:
    folder, train, validation = SAMPLES[name]
    source = shared_data / folder
    if name == "hand":
        source = write_hands(tmp_path / "hand", (source / "Buffy_1.mat").read_bytes())
    (card,) = map(find_card, read_recipe(str(LAUNCH / f"{name}.yaml")).shards_of)
    for split in {train, validation}:
        convert(card, source, tmp_path / "shards", split, ConvertConfig(max_bad=1))
    overrides = [f"shards={tmp_path}/shards", f"train_split={train}", f"validation_split={validation}", *NO_WORKERS]
    result = CliRunner().invoke(app, ["run", str(LAUNCH / f"{name}.yaml"), "--check", *overrides])
    assert result.exception is None, result.exception
    assert result.output.endswith("nothing wrong\n")


def test_the_recipe_of_a_mixture_passes_the_check_on_converted_data(shared_data: Path, tmp_path: Path) -> None:
    for card, folder in (("visdrone", "visdrone"), ("coco2017", "coco")):
        convert(find_card(card), shared_data / folder, tmp_path / card, "val", ConvertConfig(max_bad=1))
    overrides = [f"shards.{card}={tmp_path}/{card}" for card in ("visdrone", "coco2017")]
    command = ["run", str(LAUNCH / "visdrone-coco.yaml"), "--check", "train_split=val", *overrides, *NO_WORKERS]
    result = CliRunner().invoke(app, command)
    assert result.exception is None, result.exception
    assert result.output.endswith("nothing wrong\n")


@pytest.mark.parametrize(
    ("name", "methods"),
    [
        ("bccd-pruning", {"normal", "regular", "slim", "eagle-eye"}),
        ("bccd-pruning-mobilenet", set(METHODS) - {"layerwise"}),
    ],
)
def test_a_pruning_study_fine_tunes_every_cut_and_has_its_controls(name: str, methods: set[str]) -> None:
    recipe = read_recipe(str(LAUNCH / f"{name}.yaml"))
    ids = [stage.id for stage in recipe.stages]
    cuts = [stage for stage in recipe.stages if stage.kind == "prune"]
    assert [cut.id for cut in cuts if f"{cut.id}-tuned" not in ids] == []
    assert {"base-longer", "scratch", "random", "dense"} <= set(ids)
    assert {cut.method for cut in cuts} == methods


def test_the_whole_chain_ends_in_a_file_of_integers() -> None:
    recipe = read_recipe(str(LAUNCH / "bccd.yaml"))
    assert [stage.id for stage in recipe.stages][4:] == ["int8", "onnx"]
    assert recipe.stages[-1].kind == "export"
    assert recipe.stages[-1].format == "onnx-int8"


def test_a_distillation_study_tries_every_strategy_on_one_cut_beside_none() -> None:
    recipe = read_recipe(str(LAUNCH / "bccd-distillation.yaml"))
    tuned = [stage for stage in recipe.stages if recipe.start_of(stage) == "pruned" and stage.kind == "train"]
    strategies = [stage.distillation.strategy if stage.distillation else None for stage in tuned]
    assert strategies == [None, *sorted(STRATEGIES)]
    assert len({(stage.epochs, stage.optimizer.learning_rate) for stage in tuned}) == 1
    assert {recipe.teacher_stage_of(stage) for stage in tuned[1:]} == {"base"}


STUDIES = {"bccd-distillation", "bccd-pruning", "bccd-pruning-mobilenet", "bccd-quantization"}


@pytest.mark.parametrize("name", sorted({*SAMPLES, "visdrone-coco"} - STUDIES))
def test_a_recipe_trains_sparsifies_prunes_and_tunes(name: str) -> None:
    recipe = read_recipe(str(LAUNCH / f"{name}.yaml"))
    assert [stage.id for stage in recipe.stages][:4] == ["base", "sparse", "pruned", "tuned"]
    assert (recipe.train_split, recipe.validation_split) == ("train", "val")
