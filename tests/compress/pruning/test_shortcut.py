"""The method `shortcut`: tied convolutions take the mask of their first."""

import numpy as np
import pytest
from drawn_gammas import groups_by_neighbours, plan_of, random_gammas, threshold_of
from small_networks import cfg_of, conv, depthwise, head

from yolo_dist.compress.graph import ChannelGraph, prunable_convolutions
from yolo_dist.darknet.cfg import Shortcut
from yolo_dist.darknet.zoo import ZOO, zoo_cfg
from yolo_dist.errors import LayerWouldVanish

BLOCK = ChannelGraph.from_cfg(cfg_of(conv(4), conv(6), conv(4), Shortcut(from_layer=-3), *head()))
"""Layers 0 and 2 are tied."""


@pytest.mark.parametrize("percent", [0.1, 0.4])
@pytest.mark.parametrize("name", ZOO)
def test_groups_of_the_zoo_keep_what_their_first_convolution_keeps(name: str, percent: float) -> None:
    cfg = zoo_cfg(name)
    graph = ChannelGraph.from_cfg(cfg)
    gammas = random_gammas(graph)
    candidates = prunable_convolutions(graph, "classic")
    threshold = threshold_of(gammas, candidates, percent)
    first = {layer: group[0] for group in groups_by_neighbours(cfg) for layer in group}

    plan = plan_of(graph, gammas, "shortcut", percent=percent)

    assert plan.threshold == threshold
    for layer in candidates:
        decides = first.get(layer, layer)
        values = gammas[decides] if decides in candidates else np.full(len(gammas[layer]), np.inf)
        assert plan.keep[layer] == tuple(np.flatnonzero(values >= threshold).tolist())


def test_gammas_of_later_convolutions_count_for_the_threshold_but_not_for_the_mask() -> None:
    gammas = {
        0: np.array([0.9, 0.1, 0.8, 0.2], np.float32),
        1: np.full(6, 0.7, np.float32),
        2: np.array([0.1, 0.9, 0.1, 0.9], np.float32),
    }
    plan = plan_of(BLOCK, gammas, "shortcut", percent=4 / 14)
    assert plan.threshold == np.float32(0.7)
    assert plan.keep == {0: (0, 2), 1: tuple(range(6)), 2: (0, 2)}


def test_a_group_whose_first_convolution_feeds_a_depthwise_stays_whole_in_the_classic_scope() -> None:
    graph = ChannelGraph.from_cfg(cfg_of(conv(4), depthwise(4, 3), conv(4), Shortcut(from_layer=-3), conv(4), *head()))
    gammas = {0: np.full(4, 0.1, np.float32), 2: np.array([0.1, 0.9, 0.9, 0.9], np.float32)}
    gammas[4] = np.array([0.2, 0.9, 0.9, 0.9], np.float32)
    assert plan_of(graph, gammas, "shortcut", percent=0.3).keep == {2: (0, 1, 2, 3), 4: (1, 2, 3)}


def test_rounding_holds_for_the_whole_group() -> None:
    gammas = {0: np.array([0.9, 0.1, 0.3, 0.2], np.float32), 1: np.ones(6, np.float32), 2: np.ones(4, np.float32)}
    plan = plan_of(BLOCK, gammas, "shortcut", percent=0.2, round_to=2)
    assert plan.keep[0] == plan.keep[2] == (0, 2)


def test_a_group_that_would_vanish_is_named() -> None:
    gammas = {0: np.full(4, 0.1, np.float32), 1: np.full(6, 0.5, np.float32), 2: np.full(4, 0.9, np.float32)}
    with pytest.raises(LayerWouldVanish, match=r"layer 0 would keep 0 of 4 channels .* works is 0\.285"):
        plan_of(BLOCK, gammas, "shortcut", percent=0.5)
