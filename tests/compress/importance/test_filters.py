"""Norms of filters, against loops over their weights."""

import math

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from small_networks import conv, head, random_network

from yolo_dist.compress.importance import MEASURES, Basis
from yolo_dist.compress.sparsity import batch_norm
from yolo_dist.darknet.network import Network

both_norms = pytest.mark.parametrize("measure", ["l1", "l2"])


def norms_by_loop(network: Network, layer: int, order: int) -> list[float]:
    """Norm of each filter over the mean norm of its layer."""
    norms = []
    for kernel in network.get_parameter(f"layers.{layer}.conv.weight").tolist():
        total = 0.0
        for plane in kernel:
            for row in plane:
                for weight in row:
                    total += abs(weight) ** order
        norms.append(total if order == 1 else math.sqrt(total))
    return [norm / (sum(norms) / len(norms)) for norm in norms]


def of_scaled(measure: str, factor: float) -> NDArray[np.float32]:
    """Importance in a layer of which all filters are multiplied by a factor."""
    network = random_network(conv(5, 3), *head())
    with torch.no_grad():
        network.get_parameter("layers.0.conv.weight").mul_(factor)
    return MEASURES[measure](network, [0], Basis())[0]


@pytest.mark.parametrize(("measure", "order"), [("l1", 1), ("l2", 2)])
def test_norms_are_those_of_a_loop_over_all_weights(measure: str, order: int) -> None:
    network = random_network(conv(5, 3), conv(7), *head())
    importance = MEASURES[measure](network, [0, 1], Basis())
    for layer in (0, 1):
        np.testing.assert_allclose(importance[layer], norms_by_loop(network, layer, order), rtol=1e-6)


@both_norms
def test_norms_do_not_change_with_what_batch_normalisation_takes_out(measure: str) -> None:
    np.testing.assert_allclose(of_scaled(measure, 1), of_scaled(measure, 100), rtol=1e-6)


@both_norms
def test_norms_do_not_look_at_gamma(measure: str) -> None:
    network = random_network(conv(5, 3), *head())
    before = MEASURES[measure](network, [0], Basis())[0]
    with torch.no_grad():
        batch_norm(network, 0).weight.mul_(-3)
    assert np.array_equal(MEASURES[measure](network, [0], Basis())[0], before)


@both_norms
def test_filters_that_are_all_zero_are_worth_nothing(measure: str) -> None:
    assert of_scaled(measure, 0).tolist() == [0] * 5
