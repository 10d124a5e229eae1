"""EagleEye's shapes: random, reproducible, just under their budget."""

import numpy as np
import pytest
from drawn_gammas import plan_of, random_gammas
from small_networks import conv, head, random_network

from yolo_dist.compress.graph import ChannelGraph
from yolo_dist.compress.pruning import PruneConfig
from yolo_dist.compress.pruning.carry_out import planned_cfg
from yolo_dist.compress.pruning.prune import choose_plan
from yolo_dist.darknet.network import Network
from yolo_dist.darknet.shapes import count_macs, count_parameters
from yolo_dist.darknet.zoo import ZOO, zoo_cfg
from yolo_dist.errors import PruneError

REESTIMATED = {"reestimate_images": 8}


@pytest.mark.parametrize("share", [0.3, 0.6])
@pytest.mark.parametrize("name", ZOO)
def test_shapes_of_the_zoo_just_meet_their_budget(name: str, share: float) -> None:
    graph = ChannelGraph.from_cfg(zoo_cfg(name))
    plan = plan_of(graph, random_gammas(graph), "eagle-eye", target_macs=share, seed=3, scope="full", **REESTIMATED)
    left = count_macs(planned_cfg(graph, plan)) / count_macs(graph.cfg)
    assert share - 0.02 < left <= share
    assert all(plan.keep.values())
    assert 0 < plan.percent < 1


def test_parameters_may_be_the_budget_as_a_number() -> None:
    graph = ChannelGraph.from_cfg(zoo_cfg("yolov3-tiny"))
    plan = plan_of(graph, random_gammas(graph), "eagle-eye", target_parameters=1_000_000, **REESTIMATED)
    assert 950_000 < count_parameters(planned_cfg(graph, plan)) <= 1_000_000


@pytest.mark.parametrize(("budget", "fewest"), [(0.5, 0.3), (0.25, 0.05)])
def test_no_layer_becomes_a_bottleneck_while_others_keep_all(budget: float, fewest: float) -> None:
    """Shares that are cut off at all channels did that: one of the first 16 stayed, and nothing came through."""
    graph = ChannelGraph.from_cfg(zoo_cfg("yolov3-tiny"))
    gammas = random_gammas(graph)
    for seed in range(20):
        plan = plan_of(graph, gammas, "eagle-eye", target_macs=budget, seed=seed, **REESTIMATED)
        assert min(len(plan.keep[layer]) / plan.channels[layer] for layer in plan.channels) > fewest


def test_a_seed_is_a_shape_and_another_seed_another() -> None:
    graph = ChannelGraph.from_cfg(zoo_cfg("yolov4-tiny"))
    gammas = random_gammas(graph)
    first, again, other = (
        plan_of(graph, gammas, "eagle-eye", target_macs=0.5, seed=seed, **REESTIMATED) for seed in (0, 0, 1)
    )
    assert first == again != other


def test_within_a_layer_the_most_important_stay() -> None:
    graph = ChannelGraph.from_cfg(zoo_cfg("yolov3-tiny"))
    gammas = random_gammas(graph)
    plan = plan_of(graph, gammas, "eagle-eye", target_macs=0.4, **REESTIMATED)
    for layer, kept in plan.keep.items():
        gone = np.setdiff1d(np.arange(plan.channels[layer]), kept)
        assert gammas[layer][list(kept)].min() >= gammas[layer][gone].max(initial=0)


def test_rounded_shapes_are_multiples() -> None:
    graph = ChannelGraph.from_cfg(zoo_cfg("yolov3-tiny"))
    plan = plan_of(graph, random_gammas(graph), "eagle-eye", target_macs=0.5, round_to=8, **REESTIMATED)
    assert {len(kept) % 8 for kept in plan.keep.values()} == {0}


def test_operations_are_those_of_the_images_that_the_network_will_see() -> None:
    network = random_network(conv(24, 3), conv(32, 3), conv(16), *head())
    config = PruneConfig(
        method="eagle-eye", target_macs=0.5 * count_macs(network.cfg, (32, 32)), candidates=1, **REESTIMATED
    )
    larger = Network(network.cfg.with_size((320, 320)))
    larger.load_state_dict(network.state_dict())
    assert choose_plan(larger, config, (32, 32)) == choose_plan(network, config, (32, 32))


def test_a_budget_is_asked_for_and_must_be_possible() -> None:
    graph = ChannelGraph.from_cfg(zoo_cfg("yolov3-tiny"))
    with pytest.raises(PruneError, match="give the budget"):
        plan_of(graph, random_gammas(graph), "eagle-eye", **REESTIMATED)
    with pytest.raises(PruneError, match=r"target_parameters 10 cannot be met; the smallest shape here has [\d,]+"):
        plan_of(graph, random_gammas(graph), "eagle-eye", target_parameters=10, **REESTIMATED)
