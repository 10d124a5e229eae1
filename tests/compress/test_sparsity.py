"""Sparse training: how far a γ travels, what the penalty adds, what the gauge says."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from small_networks import cfg_of, conv, depthwise, head, random_network
from torch.optim import SGD

from yolo_dist.compress.graph import ChannelGraph
from yolo_dist.compress.sparsity import (
    HISTOGRAM_EDGES,
    SparsityConfig,
    SparsityPenalty,
    absolute_gammas,
    batch_norm,
    decay_curve,
    describe_gauge,
    measure_sparsity,
    prunable_share,
    resolve_factor,
    sparsity_candidates,
    travel,
)
from yolo_dist.config import validate
from yolo_dist.darknet.cfg import Layer, Shortcut
from yolo_dist.errors import ConfigError

DECAYS = ("constant", "linear", "step")
rates = st.lists(st.floats(1e-4, 0.1), min_size=1, max_size=40)


def gammas(*layers: list[float]) -> dict[int, NDArray[np.float32]]:
    return {index: np.array(values, np.float32) for index, values in enumerate(layers)}


def test_travel_of_a_constant_rate_is_steps_times_rate_times_factor_over_one_minus_momentum() -> None:
    assert travel(0.03, [0.01] * 500, 0.9, "constant") == pytest.approx(500 * 0.01 * 0.03 / (1 - 0.9))


def test_travel_of_a_linear_decay_is_a_sum_of_an_arithmetic_series() -> None:
    steps = 200
    expected = 0.01 * 0.02 * (steps + 1) / 2 / (1 - 0.5)
    assert travel(0.02, [0.01] * steps, 0.5, "linear") == pytest.approx(expected)


def test_travel_of_a_step_decay_counts_the_later_parts_less() -> None:
    expected = 0.01 * 0.02 * (60 + 30 * 0.1 + 10 * 0.01)
    assert travel(0.02, [0.01] * 100, 0.0, "step") == pytest.approx(expected)


@given(rates, st.sampled_from(DECAYS), st.floats(0, 0.99), st.floats(0.1, 5))
def test_the_automatic_factor_makes_a_gamma_travel_the_budget(
    learning_rates: list[float], decay: str, momentum: float, budget: float
) -> None:
    config = validate(SparsityConfig, {"decay": decay, "budget": budget}, "sparsity")
    factor = resolve_factor(config, learning_rates, momentum)
    assert travel(factor, learning_rates, momentum, decay) == pytest.approx(budget)


def test_a_given_factor_is_taken_as_it_is() -> None:
    assert resolve_factor(SparsityConfig(factor=1e-3), [0.01] * 10, 0.9) == 1e-3


def test_a_stage_whose_rate_is_always_zero_gives_no_factor() -> None:
    with pytest.raises(ConfigError, match=r"^sparsity: factor: auto has no learning rate .*warmup_share: 0$"):
        resolve_factor(SparsityConfig(), [0.0], 0.9)
    assert resolve_factor(SparsityConfig(factor=1e-3), [0.0], 0.9) == 1e-3


def test_sgd_moves_a_free_gamma_as_far_as_travel_says() -> None:
    """The estimate against the optimizer itself: a γ with no other gradient, momentum 0.9, long enough to settle."""
    gamma = torch.nn.Parameter(torch.tensor([2.0]))
    optimizer = SGD([gamma], lr=0.01, momentum=0.9)
    penalty = SparsityPenalty([gamma], np.full(400, 0.02))
    for step in range(400):
        gamma.grad = torch.zeros(1)
        penalty.add_to_gradients(step)
        optimizer.step()
    assert 2.0 - gamma.item() == pytest.approx(travel(0.02, [0.01] * 400, 0.9, "constant"), rel=0.03)


@pytest.mark.parametrize(
    ("decay", "first", "middle", "last"),
    [("constant", 1, 1, 1), ("linear", 1, 0.5, 0.01), ("step", 1, 1, 0.01)],
)
def test_decay_curves_begin_at_one_and_end_where_they_should(
    decay: str, first: float, middle: float, last: float
) -> None:
    curve = decay_curve(decay, 100)
    assert len(curve) == 100
    assert (curve[0], curve[50], curve[-1]) == pytest.approx((first, middle, last))
    assert (np.diff(curve) <= 0).all()


def test_the_step_decay_falls_at_60_and_at_90_percent() -> None:
    curve = decay_curve("step", 10)
    assert curve.tolist() == [1.0] * 6 + [0.1] * 3 + [0.01]


def test_the_penalty_adds_the_factor_of_the_step_times_the_sign() -> None:
    gamma = torch.nn.Parameter(torch.tensor([0.5, -2.0, 0.0]))
    gamma.grad = torch.tensor([0.1, 0.1, 0.1])
    SparsityPenalty([gamma], np.array([9.0, 0.03])).add_to_gradients(1)
    assert gamma.grad.tolist() == pytest.approx([0.13, 0.07, 0.1])


def test_a_gamma_that_no_loss_reaches_does_not_shift_the_penalties_of_others() -> None:
    reached, unreached = (torch.nn.Parameter(torch.tensor([value])) for value in (-1.0, 1.0))
    reached.grad = torch.zeros(1)
    SparsityPenalty([unreached, reached], np.array([0.5])).add_to_gradients(0)
    assert unreached.grad is None
    assert reached.grad.tolist() == [-0.5]


def test_candidates_are_plain_convolutions_that_pruning_could_cut() -> None:
    """A shortcut ties 1 and 2, and a grouped convolution reads 4 whole: pruning never touches them."""
    layers: list[Layer] = [
        conv(4),
        conv(4),
        conv(4),
        Shortcut(from_layer=-2),
        conv(4),
        conv(4, groups=2),
        conv(6),
        *head(),
    ]
    assert sparsity_candidates(ChannelGraph.from_cfg(cfg_of(*layers))) == [0, 6]


def test_scopes_are_the_candidates_of_what_shall_be_cut() -> None:
    """Layer 1 lies on a branch, 0 and 2 are tied by its shortcut, 2 feeds it; 4 is plain."""
    graph = ChannelGraph.from_cfg(cfg_of(conv(4), conv(2), conv(4), Shortcut(from_layer=-3), conv(6), *head()))
    assert sparsity_candidates(graph, "normal") == [1, 4]
    assert sparsity_candidates(graph, "shortcut") == [0, 1, 2, 4]
    assert sparsity_candidates(graph, "layer") == [2]


def test_the_full_scope_has_what_the_classic_one_leaves_out() -> None:
    """Layer 1 is read by a depthwise convolution; the linear convolution of the head has no γ."""
    graph = ChannelGraph.from_cfg(cfg_of(conv(4), conv(4), depthwise(4, 3), conv(6), *head()))
    assert sparsity_candidates(graph, "shortcut") == [0, 3]
    assert sparsity_candidates(graph, "full") == [0, 1, 3]


def test_the_gauge_of_blocks_counts_blocks_and_wants_some_of_them_to_vanish() -> None:
    blocks = gammas([1.0] * 40, [0.005] * 40, [0.001] * 8, [0.9, 1.1])
    gauge = measure_sparsity(blocks, "layer")
    assert gauge.prunable == 2 / 4
    assert gauge.verdict == "ready"
    assert measure_sparsity(blocks).verdict == "overdone"
    assert measure_sparsity(gammas([0.001, 0.002], [0.003]), "layer").verdict == "overdone"


def test_absolute_gammas_are_those_of_the_layers_asked_for() -> None:
    network = random_network(conv(4), conv(3), *head())
    with torch.no_grad():
        batch_norm(network, 1).weight.copy_(torch.tensor([-0.5, 0.25, 0.0]))
    values = absolute_gammas(network, [1])
    assert list(values) == [1]
    assert values[1].tolist() == [0.5, 0.25, 0.0]


def test_the_gauge_of_made_up_gammas() -> None:
    gauge = measure_sparsity(gammas([1.0, 1.0, 0.005, 0.0005], [1.0, 1.0, 0.005, 0.5]))
    assert gauge.below == {"1e-2": 3 / 8, "1e-3": 1 / 8}
    assert gauge.quantiles["0.5"] == pytest.approx(0.75)
    assert gauge.quantiles["0.25"] == pytest.approx(0.005)
    assert gauge.prunable == 3 / 8  # 0.0105 of 4.5105 is under 1 %, with the next 0.5 it is not
    assert gauge.verdict == "ready"
    assert sum(gauge.histogram) == 8
    assert len(gauge.histogram) == len(HISTOGRAM_EDGES) - 1


def test_gammas_beyond_the_histogram_fall_into_its_last_bin() -> None:
    assert measure_sparsity(gammas([1e4, 1.0, 0.0])).histogram[-1] == 1


@pytest.mark.parametrize(
    ("layers", "verdict"),
    [
        pytest.param([[1.0, 0.9], [1.1, 1.0]], "not yet", id="nothing is small"),
        pytest.param([[1.0] * 9 + [0.0], [1.0] * 9 + [0.001]], "not yet", id="a tenth is small"),
        pytest.param([[1.0, 1.0, 1.0, 0.0], [1.0, 1.0, 1.0, 0.001]], "ready", id="a quarter is small"),
        pytest.param([[1.0, 1.0], [0.009, 0.001]], "overdone", id="a whole layer is negligible"),
    ],
)
def test_verdicts(layers: list[list[float]], verdict: str) -> None:
    assert measure_sparsity(gammas(*layers)).verdict == verdict


def test_a_gauge_in_words() -> None:
    assert describe_gauge(measure_sparsity(gammas([1.0, 1.0, 1.0, 0.0])).as_json()) == "γ<0.01: 25%, ready to 25%"
    assert describe_gauge(measure_sparsity(gammas([1.0, 1.0])).as_json()) == "γ<0.01: 0%, not yet"


@given(st.lists(st.floats(0, 2, width=32), min_size=1, max_size=60))
def test_the_prunable_share_is_the_largest_that_costs_under_one_percent(values: list[float]) -> None:
    ordered = sorted(values)
    count = round(prunable_share(np.array(values)) * len(values))
    limit = math.fsum(ordered) * 0.01
    assert count == 0 or math.fsum(ordered[:count]) < limit * (1 + 1e-9)
    assert count == len(values) or math.fsum(ordered[: count + 1]) >= limit * (1 - 1e-9)


@pytest.mark.parametrize(
    "values", [{"factor": 0}, {"factor": "much"}, {"budget": -1}, {"decay": "cubic"}, {"scoop": 1}]
)
def test_wrong_settings_are_refused_by_name(values: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match=f"^sparsity: {next(iter(values))}"):
        validate(SparsityConfig, values, "sparsity")
