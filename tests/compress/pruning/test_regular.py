"""The method `regular`: counts are multiples, nothing vanishes, the largest |γ| stay."""

import math

import numpy as np
import pytest
from drawn_gammas import plan_of, random_gammas, threshold_of
from small_networks import cfg_of, conv, head

from yolo_dist.compress.graph import ChannelGraph, plain_convolutions
from yolo_dist.darknet.zoo import ZOO, zoo_cfg


@pytest.mark.parametrize("percent", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("round_to", [None, 8])
@pytest.mark.parametrize("name", ZOO)
def test_layers_of_the_zoo_keep_a_multiple_of_the_largest(name: str, round_to: int | None, percent: float) -> None:
    graph = ChannelGraph.from_cfg(zoo_cfg(name))
    gammas = random_gammas(graph)
    candidates = plain_convolutions(graph, "classic")
    threshold = threshold_of(gammas, candidates, percent)

    plan = plan_of(graph, gammas, "regular", percent=percent, round_to=round_to)

    for layer in candidates:
        values = gammas[layer].tolist()
        above = sum(value >= threshold for value in values)
        count = math.ceil(above / (round_to or 32)) * (round_to or 32) if above else 8
        largest = sorted(range(len(values)), key=lambda channel: (-values[channel], channel))[:count]
        assert plan.keep[layer] == tuple(sorted(largest))


@pytest.mark.parametrize(
    ("above", "channels", "kept"),
    [(0, 64, 8), (0, 5, 5), (1, 64, 32), (32, 64, 32), (33, 64, 64), (33, 40, 40), (31, 31, 31)],
)
def test_counts_round_up_but_never_above_what_there_is(above: int, channels: int, kept: int) -> None:
    graph = ChannelGraph.from_cfg(cfg_of(conv(channels), conv(200), *head()))
    gammas = {0: np.full(channels, 0.1, np.float32), 1: np.linspace(0.2, 0.9, 200, dtype=np.float32)}
    gammas[0][:above] = 1.0
    percent = (channels - above) / (200 + channels) + 1e-6  # the threshold is the least value of layer 1
    assert len(plan_of(graph, gammas, "regular", percent=percent).keep[0]) == kept


def test_equal_gammas_are_taken_in_order() -> None:
    graph = ChannelGraph.from_cfg(cfg_of(conv(16), conv(40), *head()))
    gammas = {0: np.full(16, 0.5, np.float32), 1: np.linspace(0.6, 0.9, 40, dtype=np.float32)}
    assert plan_of(graph, gammas, "regular", percent=0.3).keep[0] == tuple(range(8))
