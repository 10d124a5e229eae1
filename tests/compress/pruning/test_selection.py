"""Targets in place of percents, and the best of several shapes."""

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from small_networks import conv, head, random_network
from torch import nn

from yolo_dist.compress.graph import ChannelGraph
from yolo_dist.compress.pruning import PruneConfig, PrunePlan
from yolo_dist.compress.pruning import selection as selecting
from yolo_dist.compress.pruning.carry_out import planned_cfg
from yolo_dist.compress.pruning.prune import planner
from yolo_dist.compress.pruning.selection import Accuracy, select_plan
from yolo_dist.compress.pruning.trials import Outcome
from yolo_dist.config import validate
from yolo_dist.darknet.cfg import Shortcut
from yolo_dist.darknet.network import Network
from yolo_dist.darknet.shapes import count_macs, count_parameters
from yolo_dist.errors import ConfigError, PruneError

SIZE = (32, 32)


@pytest.fixture(scope="module")
def network() -> Network:
    return random_network(conv(24, 3), conv(32, 3), conv(16), *head())


def selected(network: Network, accuracy: Accuracy | None = None, **request: Any) -> PrunePlan:
    config = PruneConfig.model_validate(request)
    return select_plan(network, planner(network, config), config, SIZE, accuracy)


def scored(map50: float, map_: float = 0.0) -> Outcome:
    return Outcome(parameters=1, map=map_, map50=map50)


def kept_share(plan: PrunePlan) -> float:
    return sum(map(len, plan.keep.values())) / sum(plan.channels.values()) if plan.channels else 1.0


def sizes(network: Network, plan: PrunePlan) -> tuple[int, int]:
    cfg = planned_cfg(ChannelGraph.from_cfg(network.cfg), plan)
    return count_parameters(cfg), count_macs(cfg, SIZE)


@pytest.mark.parametrize("method", ["normal", "regular", "slim"])
@pytest.mark.parametrize("target", [0.4, 0.8, 6_000])
def test_the_mildest_cut_that_meets_a_number_of_parameters(network: Network, method: str, target: float) -> None:
    request: dict[str, Any] = {"method": method} | ({"round_to": 4} if method == "regular" else {})
    limit = target * count_parameters(network.cfg) if target <= 1 else target
    plan = selected(network, target_parameters=target, **request)
    assert sizes(network, plan)[0] <= limit
    milder = selected(network, percent=round(plan.percent - 0.001, 3), **request)
    assert sizes(network, milder)[0] > limit


def test_sizes_that_only_milder_cuts_have_are_found() -> None:
    """In multiples of 4 the second layer keeps 4 channels while few are left, and 8 when none is."""
    network = random_network(conv(32, 3), conv(64, 3), conv(16), *head())
    for layer, (low, high) in enumerate([(0.4, 0.5), (0.01, 0.05), (1.0, 2.0)]):
        norm = network.layers[layer].norm
        assert isinstance(norm, nn.BatchNorm2d)
        norm.weight.data.copy_(torch.linspace(low, high, norm.num_features))
    request: dict[str, Any] = {"method": "regular", "round_to": 4}
    by_percent = {n / 100: sizes(network, selected(network, percent=n / 100, **request))[0] for n in range(100)}
    assert min(by_percent.values()) < by_percent[0.99]
    for size in set(by_percent.values()):
        plan = selected(network, target_parameters=size, **request)
        assert sizes(network, plan)[0] <= size
        assert plan.percent <= min(percent for percent, found in by_percent.items() if found <= size)


def test_the_mildest_cut_that_meets_a_number_of_operations(network: Network) -> None:
    plan = selected(network, target_macs=0.5)
    assert sizes(network, plan)[1] <= 0.5 * count_macs(network.cfg, SIZE)
    milder = selected(network, percent=round(plan.percent - 0.001, 3))
    assert sizes(network, milder)[1] > 0.5 * count_macs(network.cfg, SIZE)


def test_a_target_beyond_what_a_method_can_do_names_its_limit(network: Network) -> None:
    with pytest.raises(PruneError, match=r"50 cannot be met; the largest percent that works is 0\.\d+"):
        selected(network, target_parameters=50)


def test_advice_leaves_out_what_was_done(network: Network) -> None:
    with pytest.raises(PruneError, match=r"with [\d,]+; try a smaller model$"):
        selected(network, method="slim", scope="full", target_parameters=50)


@pytest.mark.parametrize("target", [4_000, 5_000, 6_000])
def test_of_methods_that_remove_blocks_too_no_milder_hundredth_meets_the_target(target: int) -> None:
    """Here percent 0.75 leaves 6 243 parameters and 0.74 leaves 3 942, for another block is then the weakest."""
    blocks = [(conv(width), conv(24, 3), Shortcut(from_layer=-3)) for width in (38, 18, 58, 57, 7)]
    network = random_network(conv(24, 3), *[layer for block in blocks for layer in block], *head())
    plan = selected(network, method="layer-channel", target_parameters=target)
    assert sizes(network, plan)[0] <= target
    milder = range(int(plan.percent * 100))
    left = [sizes(network, selected(network, method="layer-channel", percent=n / 100))[0] for n in milder]
    assert min(left) > target


BLOCK = (conv(4), conv(16), Shortcut(from_layer=-3))


def test_a_target_that_all_blocks_but_the_last_do_not_meet_names_shortcuts() -> None:
    residual = random_network(conv(16), *BLOCK, *BLOCK, *BLOCK, *head())
    with pytest.raises(
        PruneError,
        match=r"works is 0\.999, with [\d,]+, as no percent removes the last residual block; try shortcuts 3,",
    ):
        selected(residual, method="layer", target_parameters=50)
    assert len(selected(residual, method="layer", shortcuts=3).blocks) == 3


def test_latency_is_measured_on_the_networks_that_would_come_out(
    network: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    def milliseconds(compact: Network, size: tuple[int, int]) -> float:
        assert size == SIZE
        return count_macs(compact.cfg, size) / 1e6

    monkeypatch.setattr(selecting, "network_latency_ms", milliseconds)
    limit = 0.5 * count_macs(network.cfg, SIZE)
    assert selected(network, target_latency_ms=limit / 1e6) == selected(network, target_macs=limit)


def test_the_hardest_cut_that_keeps_accuracy(network: Network) -> None:
    asked: list[float] = []

    def accuracy(plans: Sequence[PrunePlan]) -> list[Outcome]:
        asked.extend(kept_share(plan) for plan in plans)
        return [scored(0.9 * kept_share(plan)) for plan in plans]

    plan = selected(network, accuracy, max_map_drop=0.27)
    assert kept_share(plan) == pytest.approx(0.7, abs=1 / 72)
    assert kept_share(plan) >= 0.7 - 1e-9
    assert len(asked) < 14


def test_the_drop_counts_from_the_network_as_it_is(network: Network) -> None:
    """`slim` cuts a channel even at percent 0; that loss is part of the drop."""
    asked: list[PrunePlan] = []

    def accuracy(plans: Sequence[PrunePlan]) -> list[Outcome]:
        asked.extend(plans)
        return [scored(kept_share(plan)) for plan in plans]

    selected(network, accuracy, method="slim", max_map_drop=0.3)
    assert asked[0].channels == {}


def test_a_drop_that_percent_0_exceeds_names_the_smallest_one_measured(network: Network) -> None:
    def accuracy(plans: Sequence[PrunePlan]) -> list[Outcome]:
        return [scored(0.8 * kept_share(plan) if plan.channels else 0.9) for plan in plans]

    with pytest.raises(PruneError, match=r"slim: max_map_drop 0.05 cannot be met; the smallest drop .* 0, is 0\.1\d*;"):
        selected(network, accuracy, method="slim", max_map_drop=0.05)


def test_a_network_that_keeps_its_accuracy_is_cut_until_a_layer_would_vanish(network: Network) -> None:
    plan = selected(network, lambda plans: [scored(0.5)] * len(plans), max_map_drop=0.0)
    assert min(map(len, plan.keep.values())) == 1


def test_the_random_shape_of_the_highest_map_is_taken_the_first_of_equals(network: Network) -> None:
    seen: list[PrunePlan] = []

    def accuracy(plans: Sequence[PrunePlan]) -> list[Outcome]:
        seen.extend(plans)
        return [scored(0.9, 0.1), scored(0.5, 0.3), scored(0.8, 0.2), scored(0.7, 0.3)]

    request: dict[str, Any] = {"method": "eagle-eye", "target_macs": 0.5, "reestimate_images": 8}
    plan = selected(network, accuracy, **request, candidates=4, seed=5)
    assert len({str(one.keep) for one in seen}) == 4
    assert plan == seen[1] == selected(network, **request, candidates=1, seed=6)


@pytest.mark.parametrize(
    "request_", [{"max_map_drop": 0.1}, {"method": "eagle-eye", "target_macs": 0.5, "reestimate_images": 8}]
)
def test_what_needs_accuracy_says_so(network: Network, request_: dict[str, Any]) -> None:
    with pytest.raises(PruneError, match="needs a validation split to measure on; give --shards"):
        selected(network, **request_)


@pytest.mark.parametrize("amount", [{"percent": 0.3}, {"target_macs": 0.5}])
def test_where_channels_go_too_shortcuts_are_the_blocks_and_the_rest_is_theirs(amount: dict[str, float]) -> None:
    config = validate(PruneConfig, {"method": "layer-channel", "shortcuts": 1, **amount}, "prune")
    assert config.shortcuts == 1


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        ({"target_macs": 0.5, "max_map_drop": 0.1}, "target_macs and max_map_drop are one target too many"),
        ({"target_macs": 0.5, "percent": 0.3}, "target_macs stands in place of percent"),
        ({"target_macs": 0}, "target_macs: .*greater than 0"),
        ({"method": "layer", "shortcuts": 1, "percent": 0.3}, "layer takes shortcuts in place of percent; give one"),
        ({"method": "layer", "shortcuts": 1, "target_macs": 0.5}, "layer takes shortcuts in place of target_macs"),
        ({"method": "layer", "shortcuts": 0, "max_map_drop": 0.1}, "layer takes shortcuts in place of max_map_drop"),
        ({"method": "eagle-eye", "target_macs": 0.5}, "judges networks after re-estimation; set reestimate_images"),
    ],
)
def test_requests_that_contradict_themselves_are_refused(values: dict[str, object], problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        validate(PruneConfig, values, "prune")
