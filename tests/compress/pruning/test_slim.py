"""The method `slim`: strictly above the threshold, a least share a layer, tied masks OR-ed."""

import numpy as np
import pytest
from drawn_gammas import groups_by_neighbours, plan_of, random_gammas, threshold_of
from small_networks import cfg_of, conv, head

from yolo_dist.compress.graph import ChannelGraph, prunable_convolutions
from yolo_dist.darknet.cfg import Route, Shortcut
from yolo_dist.darknet.zoo import ZOO, zoo_cfg


@pytest.mark.parametrize("percent", [0.1, 0.5, 0.95])
@pytest.mark.parametrize("name", ZOO)
def test_plans_of_the_zoo_are_unions_over_tied_groups(name: str, percent: float) -> None:
    cfg = zoo_cfg(name)
    graph = ChannelGraph.from_cfg(cfg)
    gammas = random_gammas(graph)
    candidates = prunable_convolutions(graph, "classic")
    threshold = threshold_of(gammas, candidates, percent)

    def own(layer: int) -> set[int]:
        values = gammas[layer].tolist() if layer in gammas else []
        if layer not in candidates:
            return set(range(len(graph.outputs[layer])))
        least = max(1, int(len(values) * 0.01))
        largest = sorted(range(len(values)), key=lambda channel: (-values[channel], channel))
        return {channel for channel in largest if values[channel] > threshold} | set(largest[:least])

    group_of = {layer: group for group in groups_by_neighbours(cfg) for layer in group}
    plan = plan_of(graph, gammas, "slim", percent=percent)
    for layer in candidates:
        assert plan.keep[layer] == tuple(sorted(set().union(*map(own, group_of.get(layer, [layer])))))


def test_a_value_at_the_threshold_goes() -> None:
    graph = ChannelGraph.from_cfg(cfg_of(conv(4), *head()))
    gammas = {0: np.array([0.1, 0.5, 0.5, 0.9], np.float32)}
    assert plan_of(graph, gammas, "slim", percent=0.5).keep == {0: (3,)}


@pytest.mark.parametrize(("layer_keep", "kept"), [(0.01, 1), (0.25, 2), (0.5, 4)])
def test_a_weak_layer_keeps_its_least_share(layer_keep: float, kept: int) -> None:
    graph = ChannelGraph.from_cfg(cfg_of(conv(8), conv(8), *head()))
    gammas = {0: np.linspace(0.1, 0.2, 8, dtype=np.float32), 1: np.linspace(0.5, 0.9, 8, dtype=np.float32)}
    plan = plan_of(graph, gammas, "slim", percent=0.5, layer_keep=layer_keep)
    assert plan.keep[0] == tuple(range(8 - kept, 8))


def test_rounding_prefers_what_any_tied_convolution_needs() -> None:
    graph = ChannelGraph.from_cfg(cfg_of(conv(4), conv(2), conv(4), Shortcut(from_layer=-3), *head()))
    gammas = {
        0: np.array([0.9, 0.1, 0.1, 0.1], np.float32),
        1: np.ones(2, np.float32),
        2: np.array([0.1, 0.2, 0.4, 0.3], np.float32),
    }
    plan = plan_of(graph, gammas, "slim", percent=0.6, round_to=2)
    assert plan.keep[0] == plan.keep[2] == (0, 2)


def test_a_shortcut_of_a_concatenation_ties_each_piece_on_its_own() -> None:
    graph = ChannelGraph.from_cfg(cfg_of(conv(2), conv(3), Route(layers=(0, 1)), conv(5), Shortcut(from_layer=-2)))
    gammas = {
        0: np.array([0.9, 0.1], np.float32),
        1: np.array([0.1, 0.1, 0.9], np.float32),
        3: np.array([0.1, 0.1, 0.9, 0.1, 0.1], np.float32),
    }
    plan = plan_of(graph, gammas, "slim", percent=0.6)
    assert plan.keep == {0: (0,), 1: (0, 2), 3: (0, 2, 4)}
