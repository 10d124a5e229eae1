"""Sparse training's factors over a stage; what it does to a network is in test_loop."""

import pytest
import torch
from tiny_training import tiny_network

from yolo_dist.compress.sparsity import SparsityConfig, batch_norm, travel
from yolo_dist.train.sparse import SparseTraining

RATES = [0.01 * (step + 1) / 20 for step in range(20)]


def test_the_travel_of_a_stage_follows_its_rates() -> None:
    """What is added to a gradient at each step is the factor, and the factors move a γ as far as the budget says."""
    network = tiny_network()
    sparse = SparseTraining(network, SparsityConfig(decay="linear", budget=2.5), RATES, momentum=0.937)
    assert sparse.gamma_travel == pytest.approx(2.5)
    gamma = batch_norm(network, sparse.candidates[0]).weight
    assert (gamma > 0).all()
    added = []
    for step in range(len(RATES)):
        gamma.grad = torch.zeros_like(gamma)
        sparse.before_step(step)
        added.append(float(gamma.grad[0]))
    assert travel(added[0], RATES, 0.937, "linear") == pytest.approx(2.5)
    assert added == pytest.approx([added[0] * (1 - step / 20) for step in range(20)])
