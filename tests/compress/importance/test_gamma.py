"""Importance from batch normalisation, against closed forms and drawn numbers."""

import math

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from small_networks import conv, head, random_network

from yolo_dist.compress.importance import MEASURES, Basis
from yolo_dist.compress.sparsity import batch_norm
from yolo_dist.darknet.cfg import Activation
from yolo_dist.darknet.layers import ACTIVATIONS
from yolo_dist.darknet.network import Network

SCALES = (1.5, -0.7, 0.02, 3.0, 0.0, -1e-6)
SHIFTS = (0.3, -1.2, 1.0, -2.5, 0.8, -0.4)


def with_norm(activation: str, scales: tuple[float, ...] = SCALES, shifts: tuple[float, ...] = SHIFTS) -> Network:
    network = random_network(conv(len(scales), activation=activation), *head())
    with torch.no_grad():
        batch_norm(network, 0).weight.copy_(torch.tensor(scales))
        batch_norm(network, 0).bias.copy_(torch.tensor(shifts))
    return network


def importance(measure: str, network: Network) -> NDArray[np.float32]:
    return MEASURES[measure](network, [0], Basis())[0]


def test_gamma_is_the_absolute_scale() -> None:
    assert importance("gamma", with_norm("leaky")).tolist() == np.abs(np.array(SCALES, np.float32)).tolist()


@pytest.mark.parametrize("activation", sorted(ACTIVATIONS))
def test_gamma_beta_is_the_standard_deviation_of_a_million_drawn_outputs(activation: Activation) -> None:
    drawn = torch.from_numpy(np.random.default_rng(0).standard_normal(1_000_000))
    emitted = [
        float(ACTIVATIONS[activation]()(scale * drawn + shift).std())
        for scale, shift in zip(SCALES, SHIFTS, strict=True)
    ]
    np.testing.assert_allclose(importance("gamma-beta", with_norm(activation)), emitted, rtol=0.01, atol=1e-12)


def test_gamma_beta_of_a_constant_channel_is_zero() -> None:
    assert importance("gamma-beta", with_norm("leaky", (0.0, 0.0), (0.8, -0.3))).tolist() == [0, 0]


def test_gamma_beta_behind_a_linear_activation_is_the_absolute_gamma() -> None:
    np.testing.assert_allclose(importance("gamma-beta", with_norm("linear")), np.abs(SCALES), rtol=1e-6)


def test_gamma_beta_behind_relu_is_that_of_a_rectified_gaussian() -> None:
    """E[y] = βΦ(β/γ) + γφ(β/γ) and E[y²] = (β² + γ²)Φ(β/γ) + βγφ(β/γ)."""
    scales, shifts, expected = (1.5, 0.7, 0.02, 3.0), (0.3, -1.2, 0.01, -2.5), []
    for scale, shift in zip(scales, shifts, strict=True):
        below = (1 + math.erf(shift / scale / math.sqrt(2))) / 2
        density = math.exp(-((shift / scale) ** 2) / 2) / math.sqrt(2 * math.pi)
        mean = shift * below + scale * density
        expected.append(math.sqrt((shift**2 + scale**2) * below + shift * scale * density - mean**2))
    np.testing.assert_allclose(importance("gamma-beta", with_norm("relu", scales, shifts)), expected, rtol=1e-3)


def test_a_channel_that_a_leaky_activation_nearly_always_damps_matters_a_tenth_as_much() -> None:
    asleep, awake = importance("gamma-beta", with_norm("leaky", (0.5, 0.5), (-5.0, 5.0)))
    assert asleep == pytest.approx(0.05, rel=1e-3)
    assert awake == pytest.approx(0.5, rel=1e-3)


def test_gamma_beta_leaves_the_network_as_it_was() -> None:
    network = with_norm("leaky")
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    importance("gamma-beta", network)
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())
