"""Sensitivity: one set of channels at a time, by hand; and a record that is never measured twice."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tiny
from small_networks import cfg_of, conv, head
from upath import UPath

from yolo_dist.compress.graph import ChannelGraph
from yolo_dist.compress.importance import Importance
from yolo_dist.compress.pruning import PruneConfig, PrunePlan, make_plan
from yolo_dist.compress.pruning.candidates import candidate_sets
from yolo_dist.compress.pruning.trials import Outcome, Progress, TrialSetup, try_plan
from yolo_dist.compress.sensitivity import cuts
from yolo_dist.compress.sensitivity.cuts import CutsConfig, plan_set, plan_together
from yolo_dist.compress.sensitivity.record import Sensitivity, measure
from yolo_dist.config import validate
from yolo_dist.darknet.cfg import Shortcut, Upsample
from yolo_dist.data.shards import open_split
from yolo_dist.errors import ConfigError, PruneError

PLAIN = ChannelGraph.from_cfg(cfg_of(conv(4), conv(2), *head()))
TIED = ChannelGraph.from_cfg(
    cfg_of(conv(4), conv(3), conv(4), Shortcut(**{"from": -3, "activation": "linear"}), conv(2), *head())
)
"""Convolutions 0 and 2 create the same channels."""

CONFIG = CutsConfig(percents=(0.3, 0.6))


def gammas(values: dict[int, Sequence[float]]) -> Importance:
    return {layer: np.array(numbers, np.float32) for layer, numbers in values.items()}


def kept(graph: ChannelGraph, importance: Importance, number: int, percent: float) -> dict[int, tuple[int, ...]]:
    (cut,) = plan_set(graph, importance, candidate_sets(graph, "classic")[number], [percent]).trials
    assert cut.plan is not None
    return cut.plan.keep


@pytest.mark.parametrize(
    ("percent", "stay"), [(0.2, (0, 1, 2, 3)), (0.25, (0, 2, 3)), (0.5, (0, 3)), (0.75, (3,)), (0.99, (3,))]
)
def test_the_smallest_channels_of_one_layer_go_but_never_all(percent: float, stay: tuple[int, ...]) -> None:
    assert kept(PLAIN, gammas({0: [0.4, 0.1, 0.2, 0.9], 1: [0.01, 0.02]}), 0, percent) == {0: stay}


def test_tied_layers_lose_the_same_channels_and_the_larger_scale_counts() -> None:
    importance = gammas({0: [0.1, 0.9, 0.1, 0.5], 1: [1, 1, 1], 2: [0.8, 0.1, 0.2, 0.1], 4: [1, 1]})
    assert kept(TIED, importance, 0, 0.5) == {0: (0, 1), 2: (0, 1)}


def test_every_layer_that_may_lose_channels_is_in_one_set() -> None:
    def layers(graph: ChannelGraph) -> list[tuple[int, ...]]:
        return [one.convolutions for one in candidate_sets(graph, "classic")]

    assert layers(PLAIN) == [(0,), (1,)]
    assert layers(TIED) == [(0, 2), (1,), (4,)]


def test_the_full_scope_has_more() -> None:
    graph = ChannelGraph.from_cfg(cfg_of(conv(4), Upsample(stride=2), conv(2), *head()))
    assert [one.convolutions for one in candidate_sets(graph, "classic")] == [(2,)]
    assert [one.convolutions for one in candidate_sets(graph, "full")] == [(0,), (2,)]


def test_together_is_the_method_that_fits_the_network() -> None:
    importance = gammas({0: [0.4, 0.1, 0.2, 0.9], 1: [0.5, 0.6]})
    name, curve = plan_together(PLAIN, importance, "classic", [0.9, 0.5])
    assert (name, curve.layers, curve.channels) == ("normal", (), 6)
    assert [(cut.amount, cut.count) for cut in curve.trials] == [(0.5, 3), (0.9, 0)]
    assert curve.trials[0].plan is not None
    assert curve.trials[0].plan.keep == {0: (3,), 1: (0, 1)}
    assert curve.trials[1].plan is None
    assert curve.trials[1].remark.startswith("layer 1 would keep 0 of 2 channels at percent 0.9")
    tied = gammas({0: [0.1, 0.9, 0.3, 0.5], 1: [1, 1, 1], 2: [0.8, 0.1, 0.2, 0.1], 4: [1, 1]})
    assert plan_together(TIED, tied, "classic", [0.1])[0] == "shortcut"


@pytest.mark.parametrize("percents", [[0], [1], ["much"]])
def test_percents_are_shares(percents: list[object]) -> None:
    with pytest.raises(ConfigError, match="percents"):
        validate(CutsConfig, {"percents": percents}, "options")


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.write_shards(tmp_path_factory.mktemp("sensitivity"))


@pytest.fixture
def setup(shards: Path) -> TrialSetup:
    return TrialSetup(tiny.make_bundle(4).network, tiny.SIZE, open_split(shards, "val"))


def measured(setup: TrialSetup, config: CutsConfig, record: UPath, progress: Progress | None = None) -> Sensitivity:
    return measure(setup, config.question(setup.network), record, progress=progress)


@pytest.fixture
def tried(monkeypatch: pytest.MonkeyPatch) -> list[PrunePlan]:
    """The plans that were tried so far."""
    plans: list[PrunePlan] = []

    def counting(setup: TrialSetup, plan: PrunePlan) -> Outcome:
        plans.append(plan)
        return try_plan(setup, plan)

    monkeypatch.setattr(cuts, "try_plan", counting)
    return plans


def test_every_point_is_a_trial_of_its_own_plan(setup: TrialSetup, tmp_path: Path) -> None:
    found = measured(setup, CONFIG, UPath(tmp_path / "s.json"))
    network = setup.network
    assert [(curve.name, curve.channels) for curve in found.sets] == [("0", 8), ("1", 16), ("3", 16)]
    assert [trial.count for trial in found.sets[0].trials] == [2, 4]
    gamma = network.get_parameter("layers.1.norm.weight").detach().abs().numpy()
    mask = np.ones(16, bool)
    mask[np.argsort(gamma)[:9]] = False
    by_hand = PrunePlan.from_masks({1: mask}, method="by hand", percent=0.6, threshold=None)
    assert found.sets[1].trials[1].outcome == try_plan(setup, by_hand)
    assert found.together.trials[0].outcome == try_plan(setup, make_plan(network, PruneConfig(percent=0.3)))
    assert found.unchanged is not None
    assert found.unchanged.parameters == 4160
    assert Sensitivity.model_validate_json((tmp_path / "s.json").read_text()) == found
    left = [sum(outcome.map50 for _, outcome in curve.measured) for curve in found.by_damage()]
    assert left == sorted(left)


def test_an_interruption_costs_only_the_trial_under_way(
    setup: TrialSetup, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tried: list[PrunePlan]
) -> None:
    record = UPath(tmp_path / "s.json")
    whole = measured(setup, CONFIG, UPath(tmp_path / "whole.json"))
    assert len(tried) == 9, "nothing, three layers and all together at two percents"
    tried.clear()

    def interrupted(done: int, total: int) -> None:
        if done == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        measured(setup, CONFIG, record, progress=interrupted)
    assert len(tried) == 4
    seen: list[tuple[int, int]] = []
    again = measured(setup, CONFIG, record, progress=lambda done, total: seen.append((done, total)))
    assert again == whole
    assert len(tried) == 9
    assert seen[0] == (5, 9)
    assert seen[-1] == (9, 9)


def test_what_is_measured_stays_when_percents_are_added_but_not_for_another_network(
    setup: TrialSetup, tmp_path: Path, tried: list[PrunePlan]
) -> None:
    record = UPath(tmp_path / "s.json")
    measured(setup, CONFIG, record)
    tried.clear()
    measured(setup, CutsConfig(percents=(0.3, 0.6, 0.8)), record)
    assert {plan.percent for plan in tried} == {0.8}
    tried.clear()
    measured(replace(setup, network=tiny.make_bundle(5).network), CONFIG, record)
    assert len(tried) == 9
    measured(replace(setup, network=tiny.make_bundle(5).network, validation=setup.validation.first(3)), CONFIG, record)
    assert len(tried) == 18


def test_equal_cuts_are_tried_once(setup: TrialSetup, tmp_path: Path, tried: list[PrunePlan]) -> None:
    few = CutsConfig(percents=(0.01, 0.02, 0.125, 0.13))
    found = measured(setup, few, UPath(tmp_path / "s.json"))
    assert len(tried) == 5, "nothing, one channel of the first layer, two of each other, five of all"
    assert found.sets[0].trials[0].outcome == found.unchanged


def test_a_damaged_record_is_replaced(setup: TrialSetup, tmp_path: Path) -> None:
    (tmp_path / "s.json").write_text("{")
    measured(setup, CutsConfig(percents=(0.5,)), UPath(tmp_path / "s.json"))
    assert json.loads((tmp_path / "s.json").read_text())["images"] == 6


def test_a_network_whose_scales_are_all_equal_is_refused(setup: TrialSetup, tmp_path: Path) -> None:
    for layer in (0, 1, 3):
        setup.network.get_parameter(f"layers.{layer}.norm.weight").data.fill_(1)
    with pytest.raises(PruneError, match="importance gamma is 1 for all channels"):
        measured(setup, CONFIG, UPath(tmp_path / "s.json"))
    assert not (tmp_path / "s.json").exists()
