"""Readiness: what is refused, and advice that holds for the method that was asked for."""

import re
from typing import Any

import pytest
import torch
from small_networks import conv, head, random_images, random_network

from yolo_dist.compress.pruning import PruneConfig, check_ready, prune
from yolo_dist.compress.pruning.prune import planner
from yolo_dist.compress.sparsity import absolute_gammas, batch_norm, measure_sparsity
from yolo_dist.darknet.cfg import Shortcut
from yolo_dist.darknet.network import Network
from yolo_dist.darknet.shapes import count_parameters
from yolo_dist.errors import NotSparseEnough

SIZE = (32, 32)
FADED = (3, 9)
"""Convolutions that feed shortcuts and hardly contribute."""


@pytest.fixture(scope="module")
def network() -> Network:
    """Four residual blocks, two of them faded, and half of all other γ negligible."""
    block = (conv(12), conv(16, 3), Shortcut(from_layer=-3))
    network = random_network(conv(20, 3), conv(16, 3), *block, *block, *block, *block, conv(24), *head(), sparse=0.5)
    with torch.no_grad():
        for layer in FADED:
            batch_norm(network, layer).weight.mul_(1e-4)
    return network


def check(network: Network, **request: Any) -> None:
    config = PruneConfig(**request)
    plans = planner(network, config)
    check_ready(network, plans, config, plans(config))


def advice(network: Network, **request: Any) -> dict[str, Any]:
    """What a refusal says would not be refused, as keys of a request."""
    with pytest.raises(NotSparseEnough, match=r"would cut \d+\.\d% of the summed .*--force") as refusal:
        check(network, **request)
    (ready,) = re.findall(r"the network is ready to (.*?):", str(refusal.value))
    words = re.fullmatch(
        r"(?:percent (?P<percent>[\d.]+))?(?:percents (?P<percents>[\d.,]+))?(?: and )?"
        r"(?:(?P<shortcuts>\d+) residual blocks?)?",
        ready,
    )
    assert words, ready
    found: dict[str, Any] = {key: value for key, value in words.groupdict().items() if value is not None}
    return found | ({"percents": found["percents"].split(",")} if "percents" in found else {})


@pytest.mark.parametrize(
    "request_",
    [
        {"method": "normal"},
        {"method": "regular", "round_to": 2},
        {"method": "shortcut"},
        {"method": "slim"},
        {"method": "slim", "importance": "l1"},
        {"method": "layer", "percent": 0.9},
        {"method": "layer", "shortcuts": 4},
        {"method": "layer-channel"},
        {"method": "layer-channel", "shortcuts": 2},
        {"method": "layer-channel", "shortcuts": 3},
        {"method": "layer-channel-regular", "round_to": 2},
        {"method": "layerwise", "percents": [0.9] * 7},
    ],
    ids=lambda request: " ".join(map(str, request.values())),
)
def test_who_follows_the_advice_is_not_refused_again(network: Network, request_: dict[str, Any]) -> None:
    has_none = "percents" in request_ or request_ == {"method": "layer", "shortcuts": 4}
    asked = request_ if has_none else {"percent": 0.7} | request_
    followed = asked | advice(network, **asked)
    check(network, **followed)
    assert followed != asked


@pytest.mark.parametrize(
    ("request_", "ready"),
    [
        ({"method": "layer", "percent": 0.9}, {"percent": "0.74"}),
        ({"method": "layer", "shortcuts": 4}, {"shortcuts": "2"}),
    ],
)
def test_blocks_that_have_faded_may_go(network: Network, request_: dict[str, Any], ready: dict[str, str]) -> None:
    assert advice(network, **request_) == ready


def test_a_method_that_cuts_too_much_even_at_percent_0_promises_nothing() -> None:
    """`slim` cuts what is not above the threshold: at percent 0 those of the smallest |γ|, which many share here."""
    network = random_network(conv(16, 3), conv(8), *head())
    with torch.no_grad():
        for layer in (0, 1):
            batch_norm(network, layer).weight.abs_().clamp_(min=1)
    with pytest.raises(NotSparseEnough, match="the network is not ready for method slim: train it sparser"):
        check(network, method="slim", percent=0.5)


def test_one_that_may_lose_no_block_is_not_called_ready_to_lose_none() -> None:
    block = (conv(12), conv(16, 3), Shortcut(from_layer=-3))
    network = random_network(conv(16, 3), *block, *block, *block, *head())
    with pytest.raises(NotSparseEnough, match="the network is not ready for method layer: train it sparser"):
        check(network, method="layer", shortcuts=2)


def test_blocks_of_different_widths_are_ready_by_the_gauge_of_their_training() -> None:
    """A wide block has a large sum of γ, which says nothing of what it adds."""
    wide, narrow = (conv(8), conv(64, 3), Shortcut(from_layer=-3)), (conv(8), conv(8, 3), Shortcut(from_layer=-3))
    network = random_network(conv(64, 3), *wide, *wide, conv(8), *narrow, *narrow, *head())
    fed = [2, 5, 9, 12]
    with torch.no_grad():
        for layer, gamma in zip(fed, (0.0199, 1.0, 1.0, 1.0), strict=True):
            batch_norm(network, layer).weight.fill_(gamma)
    gauge = measure_sparsity(absolute_gammas(network, fed), "layer")
    assert gauge.prunable == 0.25
    check(network, method="layer", percent=0.25)


def test_a_ready_network_needs_no_force(network: Network) -> None:
    result = prune(network, PruneConfig(percent=0.3), random_images(), SIZE)
    assert count_parameters(result.network.cfg) < count_parameters(network.cfg)
    with pytest.raises(NotSparseEnough):
        prune(network, PruneConfig(percent=0.7), random_images(), SIZE)
