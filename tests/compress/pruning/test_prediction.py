"""Predicted damage: a row a percent, and a sentence where a cut is refused."""

from dataclasses import replace
from pathlib import Path

import pytest
import tiny

from yolo_dist.compress.pruning import PruneConfig, make_plan
from yolo_dist.compress.pruning.plan import PrunePlan
from yolo_dist.compress.pruning.prediction import PERCENTS, Prediction, describe_damage, predict
from yolo_dist.compress.pruning.trials import Outcome, TrialSetup, try_plan
from yolo_dist.data.shards import open_split
from yolo_dist.errors import NotSparseEnough
from yolo_dist.pipeline import run
from yolo_dist.recipe import make_recipe


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("prediction")
    tiny.write_cfg(folder)
    tiny.write_shards(folder)
    tiny.make_bundle(4).save(folder / "bundle")
    return folder


@pytest.fixture
def setup(folder: Path) -> TrialSetup:
    return TrialSetup(tiny.make_bundle(4).network, tiny.SIZE, open_split(folder / "shards", "val"))


def asked(percent: float) -> PrunePlan:
    return PrunePlan.from_masks({}, method="normal", percent=percent, threshold=None)


def predictions(*map50s: tuple[float, float]) -> list[Prediction]:
    return [Prediction(percent, Outcome(parameters=1, map=map50 / 2, map50=map50)) for percent, map50 in map50s]


def test_every_percent_is_what_a_trial_of_its_plan_leaves(setup: TrialSetup) -> None:
    config = PruneConfig(percent=0.4)
    plan = make_plan(setup.network, config)
    found = {one.percent: one.outcome for one in predict(setup, config, plan)}
    assert list(found) == sorted({0.0, 0.4, *PERCENTS})
    assert found[0.4] == try_plan(setup, plan)
    assert found[0.7] == try_plan(setup, make_plan(setup.network, PruneConfig(percent=0.7)))


def test_the_network_as_it_is_comes_first_even_if_percent_0_is_asked_for(setup: TrialSetup) -> None:
    config = PruneConfig(percent=0)
    plan = make_plan(setup.network, PruneConfig(percent=0.5))
    first, second, *_ = predict(setup, config, replace(plan, percent=0))
    assert first.outcome is not None
    assert first.outcome.parameters == 4160
    assert second.outcome == try_plan(setup, plan)


def test_a_percent_at_which_a_layer_would_vanish_says_so(setup: TrialSetup) -> None:
    norm = setup.network.get_parameter("layers.0.norm.weight")
    norm.data.mul_(1e-3)
    config = PruneConfig(percent=0.1)
    found = predict(setup, config, make_plan(setup.network, config))
    assert [one.percent for one in found if one.outcome is None] == [0.3, 0.5, 0.7, 0.9]
    assert (
        found[2].remark == "layer 0 would keep 0 of 8 channels at percent 0.3; the largest percent that works is 0.199"
    )
    assert found[2].as_json() == {
        "percent": 0.3,
        "parameters": None,
        "map": None,
        "map50": None,
        "remark": found[2].remark,
    }


def test_the_damage_names_both_accuracies_and_the_largest_free_percent() -> None:
    found = predictions((0, 0.81), (0.1, 0.82), (0.3, 0.805), (0.5, 0.7), (0.7, 0.19))
    assert describe_damage(found, asked(0.7), 128) == (
        "without fine-tuning mAP50 on 128 validation images would be 0.190 instead of 0.810, and the largest percent "
        "of 0.1, 0.3, 0.5, 0.7 that keeps it within 0.01 is 0.3"
    )
    assert describe_damage(predictions((0, 0.8), (0.1, 0.7)), asked(0.1), 6).endswith(
        "and no percent of 0.1 keeps it within 0.01"
    )


def test_a_stage_that_is_refused_tells_the_damage(folder: Path) -> None:
    stage = {"id": "pruned", "kind": "prune", "percent": 0.6}
    values = tiny.recipe_values(folder, model=str(folder / "bundle"), stages=[stage])
    tiny.write_card(folder)
    with pytest.raises(NotSparseEnough, match=r"mAP50 on 6 validation images would be 0\.\d+ instead of 0\.064"):
        run(make_recipe(values, "recipe", None))


def test_a_stage_that_is_not_refused_predicts_nothing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: object) -> None:
        raise AssertionError("predicted")

    monkeypatch.setattr("yolo_dist.stages.predict", never)
    stage = {"id": "pruned", "kind": "prune", "percent": 0.6, "force": True}
    values = tiny.recipe_values(folder, name="forced", model=str(folder / "bundle"), stages=[stage])
    assert [result.id for result in run(make_recipe(values, "recipe", None))] == ["pruned"]
