"""What a search can know of a trial before its end."""

from pathlib import Path
from typing import Any

import pytest
from searches import prepare

from yolo_dist.recipe import TrainStage, read_recipe
from yolo_dist.tune.objective import COSTS, SIZES, costs_known_at

QUANTISED = {"id": "int8", "kind": "train", "epochs": 1, "quantization": {}}
EXPORTED = {"id": "onnx", "kind": "export", "format": "onnx"}
STAGES: list[dict[str, Any]] = [
    {"id": "base", "kind": "train", "epochs": 1},
    {"id": "pruned", "kind": "prune", "percent": 0.5},
    {"id": "tuned", "kind": "train", "epochs": 1},
]


@pytest.mark.parametrize(
    ("stages", "watched", "known"),
    [
        pytest.param(STAGES, "tuned", COSTS, id="the searched stage itself"),
        pytest.param([*STAGES, {"id": "more", "kind": "train", "epochs": 1}], "tuned", COSTS, id="trained on"),
        pytest.param(STAGES, "base", (), id="cut afterwards"),
        pytest.param([*STAGES, QUANTISED], "tuned", SIZES, id="quantised afterwards"),
        pytest.param([*STAGES, QUANTISED], "int8", SIZES, id="quantised"),
        pytest.param([*STAGES, EXPORTED], "tuned", SIZES, id="exported afterwards"),
        pytest.param([*STAGES, {**STAGES[2], "id": "other", "from": "base"}], "tuned", (), id="of another branch"),
    ],
)
def test_costs_of_a_stage_in_training_that_are_those_of_the_searched_one(
    tmp_path: Path, stages: list[dict[str, Any]], watched: str, known: tuple[str, ...]
) -> None:
    recipe = read_recipe(str(prepare(tmp_path, stages=stages) / "recipe.yaml"))
    (trained,) = (stage for stage in recipe.stages if stage.id == watched)
    assert isinstance(trained, TrainStage)
    assert costs_known_at(trained, recipe) == known
