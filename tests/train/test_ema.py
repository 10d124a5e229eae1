"""The moving average, in closed form."""

import math

import pytest
import torch
from tiny_training import tiny_network

from yolo_dist.darknet.network import Network
from yolo_dist.train.ema import ExponentialAverage


def set_all(network: Network, value: float) -> Network:
    with torch.no_grad():
        for tensor in network.state_dict().values():
            tensor.fill_(value)
    return network


def test_the_average_of_a_constant_is_the_product_of_what_was_kept() -> None:
    """From 0 towards 1: after n updates 1 − Π dₖ with dₖ = 0.9999·(1 − e^(−k / 2000))."""
    average = ExponentialAverage(set_all(tiny_network(), 0.0))
    target = set_all(tiny_network(), 1.0)
    kept = 1.0
    for update in range(1, 6):
        average.update(target)
        kept *= 0.9999 * (1 - math.exp(-update / 2000))
        for name, tensor in average.network.state_dict().items():
            if tensor.is_floating_point():
                assert tensor.flatten()[0].item() == pytest.approx(1 - kept, rel=1e-6), name


def test_late_in_training_it_hardly_moves() -> None:
    average = ExponentialAverage(set_all(tiny_network(), 0.0))
    average.updates = 1_000_000
    average.update(set_all(tiny_network(), 1.0))
    assert next(average.network.parameters()).flatten()[0].item() == pytest.approx(1e-4, rel=1e-3)


def test_counters_are_copied_and_the_source_is_left_alone() -> None:
    network = set_all(tiny_network(), 3.0)
    average = ExponentialAverage(set_all(tiny_network(), 0.0))
    average.update(network)
    counter = "layers.0.norm.num_batches_tracked"
    assert average.network.state_dict()[counter].item() == 3
    assert next(network.parameters()).flatten()[0].item() == 3


def test_the_average_is_not_trained() -> None:
    average = ExponentialAverage(tiny_network().train())
    assert not average.network.training
    assert not any(parameter.requires_grad for parameter in average.network.parameters())
