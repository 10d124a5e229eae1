"""The spaces that come along: they fit their recipes, and what they search can do something."""

import math
from pathlib import Path

import pytest

from yolo_dist.compress.sparsity import resolve_factor, travel
from yolo_dist.config import read_yaml
from yolo_dist.recipe import TrainStage
from yolo_dist.train.optimizer import Schedule
from yolo_dist.train.ray_trainer import ENOUGH_TRAVEL
from yolo_dist.tune.check import check_space
from yolo_dist.tune.space import read_space, recipe_of

SPACES = Path(__file__).parents[2] / "tune_spaces"


@pytest.mark.parametrize("path", sorted(SPACES.glob("*.yaml")), ids=lambda path: path.stem)
def test_a_ready_space_fits_its_recipe(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(SPACES.parent)
    assert check_space(read_space(str(path)), str(path)).stages


@pytest.mark.parametrize("path", sorted(SPACES.glob("*.yaml")), ids=lambda path: path.stem)
def test_no_ready_space_pushes_gammas_so_softly_that_nothing_becomes_sparse(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On the 205 images of blood cells."""
    monkeypatch.chdir(SPACES.parent)
    asked = read_space(str(path))
    values = read_yaml(asked.recipe)
    some = {path: distribution.samples[0] for path, distribution in asked.space.items()}
    for key, distribution in asked.space.items():
        for value in distribution.samples if ".sparsity." in key else ():
            recipe = recipe_of(asked, values, some | {key: value})
            (stage,) = [stage for stage in recipe.stages if isinstance(stage, TrainStage) and stage.sparsity]
            steps = stage.epochs * math.ceil(205 / 16)
            optimizer, sparsity = stage.optimizer, stage.sparsity
            assert sparsity is not None
            rates = Schedule(optimizer, steps, stage.epochs, new=False).rates()
            factor = resolve_factor(sparsity, rates, optimizer.momentum)
            assert travel(factor, rates, optimizer.momentum, sparsity.decay) >= ENOUGH_TRAVEL - 1e-9


def test_every_question_has_its_space() -> None:
    expected = {"sparsity", "prune_percent", "sparsity_and_percent", "method_and_percent", "bits", "distillation"}
    assert expected <= {path.stem for path in SPACES.glob("*.yaml")}
