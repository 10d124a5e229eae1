"""The method `normal`: its plan against a few lines of arithmetic, and the largest percent that works."""

import json
import re
from contextlib import suppress

import drawn_gammas
import numpy as np
import pytest
from drawn_gammas import Gammas, random_gammas
from hypothesis import given
from hypothesis import strategies as st
from small_networks import cfg_of, conv, head

from yolo_dist.compress.graph import ChannelGraph, plain_convolutions
from yolo_dist.compress.pruning import PruneConfig, PrunePlan
from yolo_dist.config import validate
from yolo_dist.darknet.cfg import Shortcut
from yolo_dist.darknet.zoo import ZOO, zoo_cfg
from yolo_dist.errors import ConfigError, LayerWouldVanish, PruneError

THREE = ChannelGraph.from_cfg(cfg_of(conv(8), conv(5), conv(3), *head()))
"""Three convolutions of 8, 5 and 3 channels that may all be cut."""


def plan_of(graph: ChannelGraph, gammas: Gammas, percent: float, scope: str = "classic") -> PrunePlan:
    return drawn_gammas.plan_of(graph, gammas, "normal", percent=percent, scope=scope)


def works(gammas: Gammas, percent: float) -> bool:
    with suppress(LayerWouldVanish):
        return bool(plan_of(THREE, gammas, percent).keep)
    return False


@pytest.mark.parametrize("percent", [0.0, 0.1, 0.5, 0.73])
@pytest.mark.parametrize("scope", ["classic", "full"])
@pytest.mark.parametrize("name", ZOO)
def test_zoo_plans_keep_what_a_sorted_list_says(name: str, scope: str, percent: float) -> None:
    graph = ChannelGraph.from_cfg(zoo_cfg(name))
    gammas = random_gammas(graph)
    candidates = plain_convolutions(graph, "classic" if scope == "classic" else "full")
    everything = sorted(value for layer in candidates for value in gammas[layer].tolist())
    threshold = everything[int(len(everything) * percent)]

    plan = plan_of(graph, gammas, percent, scope)

    assert plan.threshold == threshold
    assert plan.keep == {
        layer: tuple(channel for channel, value in enumerate(gammas[layer].tolist()) if value >= threshold)
        for layer in candidates
    }
    assert sum(map(len, plan.keep.values())) == len(everything) - int(len(everything) * percent)


def test_equal_gammas_stay_together() -> None:
    gammas = {0: np.full(8, 0.5, np.float32), 1: np.full(5, 0.5, np.float32), 2: np.full(3, 0.5, np.float32)}
    plan = plan_of(THREE, gammas, 0.99)
    assert {layer: len(kept) for layer, kept in plan.keep.items()} == {0: 8, 1: 5, 2: 3}


def test_a_tie_at_the_threshold_is_kept() -> None:
    gammas = {0: np.array([0.1] * 4 + [0.5] * 4, np.float32), 1: np.ones(5, np.float32), 2: np.ones(3, np.float32)}
    plan = plan_of(THREE, gammas, 6 / 16)
    assert plan.threshold == 0.5
    assert plan.keep[0] == (4, 5, 6, 7)


def test_percent_zero_keeps_everything() -> None:
    plan = plan_of(THREE, random_gammas(THREE), 0.0)
    assert {layer: len(kept) for layer, kept in plan.keep.items()} == plan.channels == {0: 8, 1: 5, 2: 3}


def test_percent_near_one_keeps_the_largest_of_a_single_layer() -> None:
    graph = ChannelGraph.from_cfg(cfg_of(conv(8), *head()))
    gammas = {0: np.arange(8, dtype=np.float32)[::-1].copy()}
    assert plan_of(graph, gammas, 0.999).keep == {0: (0,)}


def test_a_layer_that_would_vanish_is_named_with_the_largest_percent_that_works() -> None:
    """Layer 1 has nothing above 0.2, nor have 10 of all 16 channels: 10/16 = 0.625 is the first percent too large."""
    gammas = {
        0: np.array([0.1] * 5 + [0.9] * 3, np.float32),
        1: np.array([0.1] * 4 + [0.2], np.float32),
        2: np.full(3, 0.8, np.float32),
    }
    with pytest.raises(LayerWouldVanish) as caught:
        plan_of(THREE, gammas, 0.7)
    assert str(caught.value) == (
        "layer 1 would keep 0 of 5 channels at percent 0.7; the largest percent that works is 0.624"
    )


@given(
    st.lists(st.integers(0, 30), min_size=16, max_size=16),
    st.integers(0, 999).map(lambda thousandths: thousandths / 1000),
)
def test_the_largest_percent_works_and_a_thousandth_more_does_not(values: list[int], percent: float) -> None:
    numbers = np.array(values, np.float32) / np.float32(30)
    gammas = {0: numbers[:8], 1: numbers[8:13], 2: numbers[13:]}
    try:
        plan_of(THREE, gammas, percent)
    except LayerWouldVanish as error:
        found = re.search(r"works is ([\d.]+)$", str(error))
        assert found is not None
        largest = float(found.group(1))
        assert largest < percent
        assert works(gammas, largest)
        assert not works(gammas, round(largest * 1000 + 1) / 1000)


def test_the_largest_percent_is_exact_where_floats_round_down() -> None:
    """100 × 0.29 is 28.999… in floats: percent 0.29 cuts 28 channels, and layer 0 has 29 that go first."""
    graph = ChannelGraph.from_cfg(cfg_of(conv(29), conv(71), *head()))
    ordered = np.linspace(0.1, 1, 100, dtype=np.float32)
    gammas = {0: ordered[:29], 1: ordered[29:]}
    with pytest.raises(LayerWouldVanish, match=r"works is 0\.29$"):
        plan_of(graph, gammas, 0.5)
    assert plan_of(graph, gammas, 0.29).keep[0] == (28,)


def test_a_network_of_tied_convolutions_has_nothing_to_cut() -> None:
    graph = ChannelGraph.from_cfg(cfg_of(conv(4), conv(4), Shortcut(from_layer=-2), *head()))
    with pytest.raises(PruneError, match="nothing can be cut"):
        plan_of(graph, random_gammas(graph), 0.5)


def test_a_plan_survives_json_and_gives_its_masks_back() -> None:
    plan = plan_of(THREE, random_gammas(THREE), 0.4)
    written = json.loads(json.dumps(plan.as_json()))
    assert written["method"] == "normal"
    assert {int(layer): tuple(entry["keep"]) for layer, entry in written["layers"].items()} == plan.keep
    again = PrunePlan.from_masks(plan.masks(), method="normal", percent=0.4, threshold=plan.threshold)
    assert again == plan


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        ({"percent": 1.0}, "percent: .*less than 1"),
        ({"percent": -0.1}, "percent: .*greater than or equal to 0"),
        ({"percent": float("nan")}, "percent: "),
        ({"method": "norml"}, "method: unknown method; there are .*normal"),
        ({"scope": "most"}, "scope: "),
        ({"percentage": 0.5}, "percentage: unknown key"),
        ({"reestimate_images": -1}, "reestimate_images: "),
    ],
)
def test_wrong_requests_are_refused_by_name(values: dict[str, object], problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        validate(PruneConfig, values, "prune")


def test_rounding_gives_layers_their_best_channels_back() -> None:
    gammas = {
        0: np.array([0.9, 0.1, 0.8, 0.2, 0.3, 0.7, 0.4, 0.6], np.float32),
        1: np.array([0.9, 0.1, 0.2, 0.3, 0.8], np.float32),
        2: np.array([0.9, 0.05, 0.8], np.float32),
    }
    plan = drawn_gammas.plan_of(THREE, gammas, "normal", percent=0.5, round_to=4)
    assert plan.keep == {0: (0, 2, 5, 7), 1: (0, 2, 3, 4), 2: (0, 1, 2)}


@pytest.mark.parametrize("option", ["shortcuts", "layer_keep", "candidates"])
def test_options_of_other_methods_are_refused(option: str) -> None:
    with pytest.raises(ConfigError, match=f"method normal does not use {option}; it uses percent, round_to"):
        validate(PruneConfig, {option: 0.5 if option == "layer_keep" else 2}, "prune")
