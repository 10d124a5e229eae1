"""First-order importance, against differences of the loss itself."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from small_networks import conv, head, random_images, random_network
from torch import Tensor

from yolo_dist.compress.importance import MEASURES, Basis
from yolo_dist.compress.sparsity import batch_norm
from yolo_dist.darknet.cfg import Dropout
from yolo_dist.darknet.network import Network
from yolo_dist.errors import PruneError

LAYERS = [0, 1]


def loss_on(seed: int) -> Callable[[Network], Tensor]:
    """A smooth loss of what a network makes of four images."""
    images = random_images(4, seed=seed)

    def loss(network: Network) -> Tensor:
        dtype = batch_norm(network, 0).weight.dtype
        return torch.stack([raw.sin().mean() for raw in network(images.to(dtype))]).sum()

    return loss


LOSSES = [loss_on(1), loss_on(2), loss_on(3)]


@pytest.fixture
def network() -> Network:
    return random_network(conv(5, 3), conv(4, activation="mish"), *head())


@torch.no_grad()
def change_by_a_gate(network: Network, loss: Callable[[Network], Tensor], layer: int, channel: int) -> float:
    """Derivative of the loss by a factor in front of one γ, from both sides."""
    gamma = batch_norm(network, layer).weight
    value, step, sides = gamma[channel].item(), 1e-5, []
    for factor in (1 + step, 1 - step):
        gamma[channel] = value * factor
        sides.append(float(loss(network)))
    gamma[channel] = value
    return (sides[0] - sides[1]) / (2 * step)


def test_taylor_is_the_mean_square_of_what_a_gate_changes(network: Network) -> None:
    network.double()
    importance = MEASURES["taylor"](network, LAYERS, Basis(losses=LOSSES))
    for layer in LAYERS:
        expected = [
            np.mean([change_by_a_gate(network, loss, layer, channel) ** 2 for loss in LOSSES])
            for channel in range(len(importance[layer]))
        ]
        np.testing.assert_allclose(importance[layer], expected, rtol=1e-4)
        assert importance[layer].min() > 0


def test_a_channel_that_nothing_reads_is_worth_nothing(network: Network) -> None:
    with torch.no_grad():
        network.get_parameter("layers.1.conv.weight")[:, 2] = 0
    importance = MEASURES["taylor"](network, LAYERS, Basis(losses=LOSSES))[0]
    assert np.flatnonzero(importance == 0).tolist() == [2]


@pytest.mark.parametrize("training", [True, False])
def test_taylor_leaves_weights_statistics_gradients_and_mode_as_they_were(network: Network, training: bool) -> None:
    network.train(training)
    for number, parameter in enumerate(network.parameters()):
        parameter.grad = torch.full_like(parameter, number)
        parameter.requires_grad_(number % 2 == 0)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}

    with torch.no_grad():
        MEASURES["taylor"](network, LAYERS, Basis(losses=LOSSES))

    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())
    assert all(module.training == training for module in network.modules())
    for number, parameter in enumerate(network.parameters()):
        assert parameter.requires_grad == (number % 2 == 0)
        assert parameter.grad is not None
        assert torch.equal(parameter.grad, torch.full_like(parameter, number))


def test_taylor_goes_by_the_network_as_it_is_evaluated() -> None:
    """Training mode would normalise by each batch and drop features by lot."""
    network = random_network(conv(5, 3), Dropout(probability=0.5), conv(4), *head())
    evaluated, trained = (
        MEASURES["taylor"](network.train(mode), [0, 2], Basis(losses=LOSSES)) for mode in (False, True)
    )
    assert all(np.array_equal(evaluated[layer], trained[layer]) for layer in (0, 2))


def test_taylor_without_batches_is_refused(network: Network) -> None:
    with pytest.raises(PruneError, match=r"^importance taylor needs calibration images; "):
        MEASURES["taylor"](network, LAYERS, Basis())


def test_gradients_that_are_not_finite_are_refused_by_layer(network: Network) -> None:
    def broken(network: Network) -> Tensor:
        return LOSSES[0](network) * float("inf")

    with pytest.raises(PruneError, match=r"layer 0 .*not finite"):
        MEASURES["taylor"](network, LAYERS, Basis(losses=[broken]))
