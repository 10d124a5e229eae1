"""Trials: what a plan would leave, the same wherever it is tried."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tiny
import torch
from small_networks import cfg_of, conv, head, randomize

from yolo_dist.compress.pruning import PruneConfig, PrunePlan, make_plan
from yolo_dist.compress.pruning.trials import TrialSetup, evaluate_plans, try_plan
from yolo_dist.compress.sparsity import batch_norm
from yolo_dist.darknet.network import Network, initialize
from yolo_dist.darknet.shapes import count_parameters
from yolo_dist.data.scenes import CLASSES
from yolo_dist.data.shards import open_split
from yolo_dist.errors import ConfigError, NonFiniteOutput, PruneError, ShardCorrupt
from yolo_dist.evaluate.evaluator import evaluate, ground_truth
from yolo_dist.evaluate.metrics import coco_metrics

NOTHING = PrunePlan.from_masks({}, method="none", percent=0, threshold=None)


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.write_shards(tmp_path_factory.mktemp("trials"))


@pytest.fixture
def setup(shards: Path) -> TrialSetup:
    return TrialSetup(tiny.make_bundle(4).network, tiny.SIZE, open_split(shards, "val"), open_split(shards, "train"))


def plans_of(setup: TrialSetup, *percents: float) -> list[PrunePlan]:
    return [make_plan(setup.network, PruneConfig(percent=percent)) for percent in percents]


@pytest.mark.parametrize("reestimate", [0, 4])
def test_cutting_nothing_leaves_the_accuracy_of_the_network_as_it_is(setup: TrialSetup, reestimate: int) -> None:
    whole = evaluate(setup.network, setup.validation, tiny.SIZE)
    assert whole is not None
    assert whole.metrics.map > 0
    outcome = try_plan(replace(setup, reestimate_images=reestimate), NOTHING)
    assert (outcome.map, outcome.map50) == (whole.metrics.map, whole.metrics.map50)
    assert outcome.parameters == count_parameters(setup.network.cfg)


def one_by_one(shards: Path, dead: list[int]) -> TrialSetup:
    """A network of 1×1 convolutions, the first with γ = 0 in some channels."""
    network = Network(cfg_of(conv(6), conv(5), *head(len(CLASSES))))
    initialize(network, 3)
    randomize(network, 3)
    with torch.no_grad():
        batch_norm(network, 0).weight[dead] = 0
    return TrialSetup(network, (32, 32), open_split(shards, "val"))


def test_a_dead_channel_costs_nothing_where_nothing_is_padded(shards: Path) -> None:
    setup = one_by_one(shards, [1, 4])
    plan = PrunePlan.from_masks(
        {0: np.array([True, False, True, True, False, True])}, method="by hand", percent=0.3, threshold=None
    )
    whole, cut = evaluate_plans(setup, [NOTHING, plan])
    assert cut.map == pytest.approx(whole.map, abs=1e-6)
    assert whole.map > 0
    assert cut.parameters < whole.parameters
    assert try_plan(replace(setup, compensate=False), plan).map != pytest.approx(whole.map, abs=1e-6)


def test_a_trial_changes_neither_the_network_nor_torch(setup: TrialSetup) -> None:
    before = {name: value.clone() for name, value in setup.network.state_dict().items()}
    threads = torch.get_num_threads()
    evaluate_plans(replace(setup, reestimate_images=4), plans_of(setup, 0.5))
    assert all(torch.equal(before[name], value) for name, value in setup.network.state_dict().items())
    assert torch.get_num_threads() == threads


def test_re_estimation_is_that_of_the_cut_network(setup: TrialSetup) -> None:
    (plan,) = plans_of(setup, 0.5)
    assert try_plan(replace(setup, reestimate_images=8), plan) != try_plan(setup, plan)
    with pytest.raises(PruneError, match="needs training images"):
        try_plan(replace(setup, reestimate_images=8, train=None), plan)


def test_the_first_images_are_measured_as_if_there_were_no_others(setup: TrialSetup) -> None:
    whole = evaluate(setup.network, setup.validation, tiny.SIZE)
    assert whole is not None
    expected = coco_metrics(ground_truth(setup.validation)[:3], whole.detections[:3], CLASSES, 100)
    few = try_plan(replace(setup, validation=setup.validation.first(3)), NOTHING)
    assert (few.map, few.map50) == (expected.map, expected.map50)
    assert expected.map != whole.metrics.map


def test_the_number_of_workers_changes_nothing(setup: TrialSetup, ray_session: None) -> None:
    plans = [NOTHING, *plans_of(setup, 0.2, 0.4, 0.6, 0.8)]
    few = replace(setup, validation=setup.validation.first(5), reestimate_images=4)
    seen: list[tuple[int, int]] = []
    here = evaluate_plans(few, plans)
    there = evaluate_plans(few, plans, workers=2, progress=lambda done, total: seen.append((done, total)))
    assert there == here
    assert len({outcome.parameters for outcome in here}) == 5
    assert seen == [(done, 5) for done in range(1, 6)]


def test_an_error_in_a_worker_is_itself(setup: TrialSetup, tmp_path: Path, ray_session: None) -> None:
    bundle = tiny.make_bundle()
    with torch.no_grad():
        bundle.network.get_parameter("layers.0.conv.weight")[0] = float("nan")
    with pytest.raises(NonFiniteOutput, match="not finite"):
        evaluate_plans(replace(setup, network=bundle.network), [NOTHING], workers=1)
    damaged = open_split(tiny.write_shards(tmp_path), "val")
    (shard,) = (tmp_path / "shards" / "val").glob("*.arrow")
    shard.write_bytes(shard.read_bytes()[:-1] + b"x")
    with pytest.raises(ShardCorrupt, match="sha256 is"):
        evaluate_plans(replace(setup, validation=damaged), [NOTHING], workers=1)


def test_more_workers_than_cores_are_refused_by_the_name_of_the_option(setup: TrialSetup, ray_session: None) -> None:
    with pytest.raises(ConfigError, match="--workers: 500 workers of 1 CPUs do not fit"):
        evaluate_plans(setup, [NOTHING], workers=500, option="--workers")
