"""A share for every set of channels."""

import numpy as np
import pytest
from drawn_gammas import plan_of, random_gammas

from yolo_dist.compress.graph import ChannelGraph
from yolo_dist.compress.pruning import PruneConfig
from yolo_dist.compress.pruning.explanation import explain
from yolo_dist.config import validate
from yolo_dist.darknet.zoo import zoo_cfg
from yolo_dist.errors import ConfigError, PruneError

SHARES = (0.0, 0.1, 0.25, 0.5, 0.75, 0.9, 0.99, 0.3, 0.6, 0.2)


def test_each_layer_loses_its_own_share_and_keeps_the_best() -> None:
    graph = ChannelGraph.from_cfg(zoo_cfg("yolov3-tiny"))
    gammas = random_gammas(graph)
    plan = plan_of(graph, gammas, "layerwise", percents=SHARES)
    widths = [16, 32, 64, 128, 256, 512, 1024, 256, 512, 256]
    layers = sorted(plan.keep)
    assert [plan.channels[layer] for layer in layers] == widths
    assert [len(plan.keep[layer]) for layer in layers] == [16, 29, 48, 64, 64, 51, 10, 179, 205, 205]
    for layer in layers:
        best = np.argsort(-gammas[layer], kind="stable")[: len(plan.keep[layer])]
        assert list(plan.keep[layer]) == sorted(best)
    assert plan.percent == pytest.approx(1 - (16 + 29 + 48 + 64 + 64 + 51 + 10 + 179 + 205 + 205) / sum(widths))


def test_there_is_a_share_for_every_set_that_the_explanation_shows_as_one_that_may_be_cut() -> None:
    graph = ChannelGraph.from_cfg(zoo_cfg("yolov4-tiny"))
    cuttable = [one for one in explain(graph, "classic").sets if one.may_cut["slim"]]
    plan_of(graph, random_gammas(graph), "layerwise", percents=(0.5,) * len(cuttable))


def test_channels_that_a_shortcut_ties_are_one_set() -> None:
    graph = ChannelGraph.from_cfg(zoo_cfg("yolov3"))
    plan = plan_of(graph, random_gammas(graph), "layerwise", percents=(0.5,) * 47)
    assert plan.keep[1] == plan.keep[3]  # layer 4 adds them
    assert len(plan.keep[1]) == 32


def test_rounded_layers_are_multiples() -> None:
    graph = ChannelGraph.from_cfg(zoo_cfg("yolov3-tiny"))
    plan = plan_of(graph, random_gammas(graph), "layerwise", percents=SHARES, round_to=8)
    assert {len(kept) % 8 for kept in plan.keep.values()} == {0}


def test_the_number_of_shares_must_be_that_of_the_sets() -> None:
    graph = ChannelGraph.from_cfg(zoo_cfg("yolov3-tiny"))
    with pytest.raises(PruneError) as error:
        plan_of(graph, random_gammas(graph), "layerwise", percents=(0.5, 0.5))
    assert str(error.value) == (
        "method layerwise: percents has 2 shares, and in scope classic there are 10 sets of channels to cut, "
        "created by layers 0, 2, 4, 6, 8, 10, 12, 13, 14, 21"
    )


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({}, "layerwise needs percents, a share for each set of channels: see prune --explain"),
        ({"percents": [0.5, 1.0]}, "percents.1: Input should be less than 1"),
        ({"percents": [0.5], "percent": 0.3}, "method layerwise does not use percent; it uses percents, round_to"),
        ({"percents": [0.5], "target_macs": 0.5}, "target_macs needs a method with a percent, and layerwise has none"),
    ],
)
def test_options_that_do_not_go_together_are_refused(values: dict[str, object], said: str) -> None:
    with pytest.raises(ConfigError) as error:
        validate(PruneConfig, {"method": "layerwise", **values}, "prune")
    assert any(said in problem for problem in error.value.problems)
