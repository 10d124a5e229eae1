"""What all measures have in common, and plans that go by them."""

import re

import numpy as np
import pytest
import torch
from small_networks import conv, head, random_images, random_network
from torch import Tensor

from yolo_dist.compress.graph import ChannelGraph
from yolo_dist.compress.importance import MEASURES, Basis
from yolo_dist.compress.pruning import METHODS, PruneConfig, make_plan, prune
from yolo_dist.compress.sparsity import batch_norm
from yolo_dist.config import validate
from yolo_dist.darknet.cfg import Route, Shortcut, Upsample
from yolo_dist.darknet.network import Network
from yolo_dist.errors import ConfigError, NotSparseEnough, PruneError

SIZE = (32, 32)
every_measure = pytest.mark.parametrize("measure", sorted(MEASURES))


def loss(network: Network) -> Tensor:
    return torch.stack([raw.square().mean() for raw in network(random_images())]).sum()


def test_a_recipe_may_name_six_measures() -> None:
    assert sorted(MEASURES) == ["gamma", "gamma-beta", "l1", "l2", "random", "taylor"]
    assert PruneConfig().importance == "gamma"


@every_measure
def test_a_measure_gives_every_channel_of_every_convolution_a_number_from_0(measure: str) -> None:
    """Tied convolutions and one of which only a slice is read included."""
    network = random_network(
        conv(8, 3), conv(8), Shortcut(from_layer=-2), conv(6), Route(layers=-1, groups=2, group_id=1), conv(5), *head()
    )
    layers = list(ChannelGraph.from_cfg(network.cfg).convolutions())
    importance = MEASURES[measure](network, layers, Basis(losses=[loss]))
    assert layers == list(importance) == [0, 1, 3, 5]
    for layer, values in importance.items():
        assert values.dtype == np.float32
        assert values.shape == (batch_norm(network, layer).num_features,)
        assert (values >= 0).all()


@every_measure
def test_a_measure_of_no_convolutions_is_empty(measure: str) -> None:
    assert MEASURES[measure](random_network(*head()), [], Basis(losses=[loss])) == {}


@every_measure
def test_a_plan_keeps_what_its_importance_ranks_highest_and_says_which_it_was(measure: str) -> None:
    network = random_network(conv(12, 3), conv(10), *head())
    plan = make_plan(network, PruneConfig(importance=measure, percent=0.3), [loss])
    importance = MEASURES[measure](network, [0, 1], Basis(losses=[loss]))
    ordered = sorted(np.concatenate([importance[0], importance[1]]).tolist())
    threshold = ordered[int(22 * 0.3)]
    assert plan.threshold == threshold
    assert plan.keep == {layer: tuple(np.flatnonzero(importance[layer] >= threshold)) for layer in (0, 1)}
    assert plan.importance == plan.as_json()["importance"] == measure


LAYER_METHODS = {"layer", "layer-channel", "layer-channel-regular"}
FITTING = [
    (method, measure)
    for method in sorted(set(METHODS) - {"eagle-eye"})
    for measure in sorted(set(MEASURES) - ({"l1", "l2"} if method in LAYER_METHODS else set()))
]


@pytest.mark.parametrize(("method", "measure"), FITTING)
def test_every_method_goes_by_every_measure_of_what_it_ranks(method: str, measure: str) -> None:
    network = random_network(conv(8, 3), conv(4), conv(8, 3), Shortcut(from_layer=-3), conv(6), *head())
    amount = {"percents": (0.5, 0.5, 0.5)} if method == "layerwise" else {"percent": 0.1}
    plan = make_plan(network, validate(PruneConfig, {"method": method, "importance": measure, **amount}, ""), [loss])
    assert (plan.method, plan.importance) == (method, measure)


@pytest.mark.parametrize("measure", ["l1", "l2"])
@pytest.mark.parametrize("method", sorted(LAYER_METHODS))
def test_norms_relative_to_their_layer_rank_no_blocks(method: str, measure: str) -> None:
    problem = f"importance {measure} has the same mean in every layer, so method {method} cannot rank blocks by it; "
    with pytest.raises(ConfigError, match=problem + "there are gamma, gamma-beta, random, taylor"):
        validate(PruneConfig, {"method": method, "importance": measure}, "prune")


def test_seeds_of_random_importance_give_different_plans() -> None:
    network = random_network(conv(12, 3), conv(10), *head())
    first, again, other = (
        make_plan(network, PruneConfig(importance="random", percent=0.3, seed=seed)) for seed in (1, 1, 2)
    )
    assert first == again != other


def test_a_network_pruned_by_lot_proves_itself_like_any_other() -> None:
    network = random_network(conv(12, 3), conv(10), *head())
    result = prune(network, PruneConfig(importance="random", percent=0.3, force=True), random_images(), SIZE)
    assert result.proof.max_abs_difference <= result.proof.tolerance
    assert result.plan.importance == "random"


def test_readiness_is_a_question_of_gamma_whatever_the_importance() -> None:
    """Six of ten γ are negligible: cutting three of ten by γ takes only those, by lot it takes others too."""
    network = random_network(conv(40, 3), conv(40), *head(), sparse=0.6)
    prune(network, PruneConfig(percent=0.3), random_images(), SIZE)
    with pytest.raises(NotSparseEnough, match=r"of the summed \|γ\|.* not ready for method normal:"):
        prune(network, PruneConfig(percent=0.3, importance="random"), random_images(), SIZE)


@pytest.mark.parametrize(("measure", "value"), [("gamma", "0.5"), ("l1", "1"), ("l2", "1")])
def test_a_measure_that_tells_no_channels_apart_is_named(measure: str, value: str) -> None:
    network = random_network(conv(6), *head())
    with torch.no_grad():
        batch_norm(network, 0).weight.fill_(0.5)
        network.get_parameter("layers.0.conv.weight").fill_(0.25)
    message = re.escape(
        f"importance {measure} is {value} for all channels that may be cut, so nothing tells them apart; "
    )
    with pytest.raises(PruneError, match=f"^{message}"):
        make_plan(network, PruneConfig(importance=measure))


@pytest.mark.parametrize("method", ["normal", "regular", "shortcut", "slim"])
def test_channels_that_may_not_be_cut_tell_no_others_apart(method: str) -> None:
    """Layer 1 feeds an upsampling, which the classic scope leaves out: its γ differ, all others are equal."""
    network = random_network(conv(64, 3, stride=2), conv(8), Upsample(), *head())
    with torch.no_grad():
        batch_norm(network, 0).weight.fill_(0.5)
    with pytest.raises(PruneError, match=r"importance gamma is 0\.5 for all channels that may be cut"):
        make_plan(network, PruneConfig(method=method))


def test_a_single_channel_need_not_differ_from_others() -> None:
    assert make_plan(random_network(conv(1, 3), *head()), PruneConfig()).keep == {0: (0,)}


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        ({"importance": "gama"}, "importance: unknown importance; there are gamma, gamma-beta, l1, l2, random, taylor"),
        ({"seed": -1}, "seed: .*greater than or equal to 0"),
        ({"importance": "taylor", "calibration_images": 0}, "calibration_images: .*greater than or equal to 1"),
        ({"calibration_images": 8}, "importance gamma does not use calibration_images; taylor does"),
    ],
)
def test_wrong_requests_are_refused_by_name(values: dict[str, object], problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        validate(PruneConfig, values, "prune")


@pytest.mark.parametrize(
    ("values", "needed"),
    [
        ({}, False),
        ({"importance": "random"}, False),
        ({"importance": "taylor"}, True),
        ({"reestimate_images": 1}, True),
    ],
)
def test_training_images_are_needed_for_gradients_and_for_statistics(values: dict[str, object], needed: bool) -> None:
    assert validate(PruneConfig, values, "prune").needs_training_images is needed
