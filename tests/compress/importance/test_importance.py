"""Measures of importance against closed forms, plain loops, draws and numerical gradients."""

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from small_networks import conv, head, random_images, random_network
from torch import Tensor

from yolo_dist.compress.importance import MEASURES, Basis, BatchLoss, Importance
from yolo_dist.compress.pruning import PruneConfig, make_plan
from yolo_dist.compress.sparsity import absolute_gammas, batch_norm
from yolo_dist.darknet.layers import Convolution
from yolo_dist.darknet.network import Network
from yolo_dist.errors import PruneError

LAYERS = (0, 1, 2)


@pytest.fixture
def network() -> Network:
    return random_network(conv(6, 3), conv(5, 3, activation="relu"), conv(4, activation="linear"), *head())


def measured(network: Network, name: str, basis: Basis | None = None) -> Importance:
    return MEASURES[name](network, LAYERS, basis or Basis())


def loss(network: Network) -> Tensor:
    """Something smooth that depends on every channel."""
    return sum((raw.square().mean() for raw in network(random_images())), torch.zeros(()))


@pytest.mark.parametrize("name", sorted(MEASURES))
def test_a_value_a_channel_and_the_network_stays_as_it_was(network: Network, name: str) -> None:
    before = {key: value.clone() for key, value in network.state_dict().items()}
    values = measured(network, name, Basis(losses=[loss]))
    assert {layer: value.shape for layer, value in values.items()} == {0: (6,), 1: (5,), 2: (4,)}
    assert all(value.dtype == np.float32 and (value >= 0).all() for value in values.values())
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())
    assert all(parameter.grad is None and parameter.requires_grad for parameter in network.parameters())


def test_gamma_is_its_absolute_value(network: Network) -> None:
    values, expected = measured(network, "gamma"), absolute_gammas(network, LAYERS)
    assert all((values[layer] == expected[layer]).all() for layer in LAYERS)


@pytest.mark.parametrize(("name", "power"), [("l1", 1), ("l2", 2)])
def test_norms_are_those_of_a_loop_relative_to_their_layer(network: Network, name: str, power: int) -> None:
    values = measured(network, name)
    for layer in LAYERS:
        module = network.layers[layer]
        assert isinstance(module, Convolution)
        norms = [
            sum(abs(weight) ** power for weight in filter_.flatten().tolist()) ** (1 / power)
            for filter_ in module.conv.weight
        ]
        np.testing.assert_allclose(values[layer], np.array(norms) / np.mean(norms), rtol=1e-5)


def test_gamma_and_beta_give_the_spread_of_what_a_channel_emits(network: Network) -> None:
    drawn = torch.randn(400_000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    values = measured(network, "gamma-beta")
    for layer in LAYERS:
        norm, module = batch_norm(network, layer), network.layers[layer]
        assert isinstance(module, Convolution)
        parameters = zip(norm.weight.tolist(), norm.bias.tolist(), strict=True)
        for channel, (scale, shift) in enumerate(parameters):
            response = scale * drawn + shift
            assert values[layer][channel] == pytest.approx(float(module.activation(response).std()), rel=0.01, abs=1e-3)
    np.testing.assert_allclose(values[2], absolute_gammas(network, [2])[2], rtol=1e-4)  # linear: |γ| itself


def test_taylor_is_the_square_of_gamma_times_a_numerical_gradient(network: Network) -> None:
    network.double()

    def precise(network: Network) -> Tensor:
        return sum((raw.square().mean() for raw in network(random_images().double())), torch.zeros(()))

    values = measured(network, "taylor", Basis(losses=[precise]))
    step = 1e-5
    for layer in LAYERS:
        gamma = batch_norm(network, layer).weight.detach()
        for channel in range(len(gamma)):
            sides = []
            for sign in (1, -1):
                with torch.no_grad():
                    gamma[channel] += sign * step
                    sides.append(float(precise(network)))
                    gamma[channel] -= sign * step
            slope = (sides[0] - sides[1]) / (2 * step)
            assert values[layer][channel] == pytest.approx((gamma[channel].item() * slope) ** 2, rel=1e-3, abs=1e-12)


def test_taylor_needs_images_and_finite_gradients(network: Network) -> None:
    with pytest.raises(PruneError, match="importance taylor needs calibration images"):
        measured(network, "taylor")
    with pytest.raises(PruneError, match="gradients on the calibration images are not finite"):
        measured(network, "taylor", Basis(losses=[lambda network: loss(network) * float("inf")]))


def test_random_is_of_the_seed_and_never_of_the_weights(network: Network) -> None:
    first = measured(network, "random", Basis(seed=3))
    other_weights = random_network(conv(6, 3), conv(5, 3), conv(4), *head(), seed=8)
    again, other = measured(other_weights, "random", Basis(seed=3)), measured(network, "random", Basis(seed=4))
    assert all((first[layer] == again[layer]).all() for layer in LAYERS)
    assert not any((first[layer] == other[layer]).any() for layer in LAYERS)


@pytest.mark.parametrize("name", sorted(MEASURES))
def test_a_plan_cuts_the_least_important_and_says_by_what(network: Network, name: str) -> None:
    def losses() -> Iterator[BatchLoss]:
        yield loss

    plan = make_plan(network, PruneConfig(importance=name, percent=0.2), losses())
    values = measured(network, name, Basis(losses=losses()))
    everything = sorted(value for layer in LAYERS for value in values[layer].tolist())
    assert plan.importance == plan.as_json()["importance"] == name
    assert plan.threshold == everything[3]
    assert sum(map(len, plan.keep.values())) == 12
