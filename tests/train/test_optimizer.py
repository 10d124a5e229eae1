"""The optimizer's groups, and the schedule as a function of the step."""

from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from small_networks import cfg_of, conv, depthwise, head
from tiny_training import tiny_network, without_batch_norm

from yolo_dist.config import validate
from yolo_dist.darknet.cfg import SqueezeExcite
from yolo_dist.darknet.network import Network
from yolo_dist.errors import ConfigError
from yolo_dist.train.optimizer import BIASES, SCALES, WEIGHTS, OptimizerConfig, Schedule, build_optimizer

LONG = OptimizerConfig(warmup_epochs=3, warmup_steps=500)


def names_by_group(network: Network) -> list[set[str]]:
    names = {id(parameter): name for name, parameter in network.named_parameters()}
    groups = build_optimizer(network, OptimizerConfig()).param_groups
    return [{names[id(parameter)] for parameter in group["params"]} for group in groups]


def test_only_convolution_weights_decay_depthwise_and_gates_included() -> None:
    network = Network(cfg_of(conv(4), depthwise(4, 3), SqueezeExcite(filters=4), conv(4, groups=4), *head()))
    groups = names_by_group(network)
    assert groups[WEIGHTS] == {
        "layers.0.conv.weight",
        "layers.1.conv.weight",
        "layers.2.fc1.weight",
        "layers.2.fc2.weight",
        "layers.3.conv.weight",
        "layers.4.conv.weight",
    }
    assert groups[SCALES] == {f"layers.{index}.norm.weight" for index in (0, 1, 3)}
    assert groups[BIASES] == {*(f"layers.{index}.norm.bias" for index in (0, 1, 3)), "layers.4.conv.bias"}
    optimizer = build_optimizer(network, OptimizerConfig(weight_decay=1e-3))
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.0, 1e-3, 0.0]


def test_every_parameter_is_in_exactly_one_group() -> None:
    network = tiny_network()
    groups = names_by_group(network)
    assert sum(map(len, groups)) == len(list(network.parameters())) == len(set.union(*groups))


def test_a_network_without_batch_norm_has_no_scales_and_still_trains() -> None:
    network = without_batch_norm()
    optimizer = build_optimizer(network, OptimizerConfig())
    assert optimizer.param_groups[SCALES]["params"] == []
    before = next(network.parameters()).detach().clone()
    for parameter in network.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    assert not torch.equal(before, next(network.parameters()))


@pytest.mark.parametrize("momentum", [0.0, 0.937])
def test_steps_are_those_of_nesterovs_momentum(momentum: float) -> None:
    """v ← m·v + g; w ← w − lr·(g + m·v), by hand for two steps."""
    network = tiny_network()
    optimizer = build_optimizer(network, OptimizerConfig(momentum=momentum, learning_rate=0.1, weight_decay=0))
    weight = next(network.parameters())
    expected, velocity = weight.detach().clone(), torch.zeros_like(weight)
    for gradient in (1.0, -0.5):
        weight.grad = torch.full_like(weight, gradient)
        optimizer.step()
        velocity = momentum * velocity + gradient
        expected -= 0.1 * (gradient + momentum * velocity)
        torch.testing.assert_close(weight.detach(), expected)


def test_a_long_stage_warms_up_for_the_longer_of_epochs_and_steps() -> None:
    assert Schedule(LONG, steps=100 * 300, epochs=300).warmup == 500
    assert Schedule(LONG, steps=1000 * 300, epochs=300).warmup == 3000


def test_a_short_stage_spends_at_most_a_tenth_in_warm_up() -> None:
    assert Schedule(LONG, steps=200, epochs=10).warmup == 20
    assert Schedule(LONG, steps=9, epochs=3).warmup == 0


def test_rates_at_the_beginning_at_the_end_of_warm_up_and_at_the_end() -> None:
    schedule = Schedule(LONG, steps=10_000, epochs=100)
    assert schedule.warmup == 500
    assert schedule.rate(0) == 0
    assert schedule.bias_rate(0) == 0.1
    assert schedule.iou_share(0) == 0
    assert schedule.rate(250) == pytest.approx(0.005, rel=0.01)
    assert schedule.bias_rate(250) == pytest.approx(0.055, rel=0.01)
    assert schedule.iou_share(250) == 0.5
    assert schedule.rate(500) == schedule.bias_rate(500) == pytest.approx(0.01, rel=0.01)
    assert schedule.iou_share(500) == schedule.iou_share(9_999) == 1
    assert schedule.rate(5_000) == pytest.approx(0.01 * (1 + 0.05) / 2)
    assert schedule.rate(9_999) == pytest.approx(0.01 * 0.05, rel=1e-3)


def test_a_stage_without_warm_up_starts_at_the_full_rate_for_all() -> None:
    schedule = Schedule(OptimizerConfig(), steps=5, epochs=5)
    assert schedule.rate(0) == schedule.bias_rate(0) == 0.01
    assert schedule.iou_share(0) == 1


@given(st.integers(1, 3000), st.integers(1, 50), st.floats(0, 1), st.floats(0.01, 1))
def test_rates_stay_in_their_bounds_and_only_fall_after_warm_up(
    steps: int, epochs: int, share: float, final: float
) -> None:
    schedule = Schedule(OptimizerConfig(warmup_share=share, final_fraction=final), steps, epochs)
    rates = schedule.rates()
    assert len(rates) == steps
    assert all(0 <= rate <= 0.01 * (1 + 1e-9) for rate in rates)
    after = rates[schedule.warmup :]
    assert all(later <= earlier * (1 + 1e-9) for earlier, later in pairwise(after))
    assert all(rate >= 0.01 * final * (1 - 1e-9) for rate in after)
    assert schedule.warmup <= share * steps


def test_rates_reach_the_groups_of_the_optimizer() -> None:
    schedule = Schedule(LONG, steps=10_000, epochs=100)
    optimizer = build_optimizer(tiny_network(), LONG)
    schedule.apply(optimizer, 100)
    assert [group["lr"] for group in optimizer.param_groups] == [
        schedule.bias_rate(100),
        schedule.rate(100),
        schedule.rate(100),
    ]


@pytest.mark.parametrize(
    "values", [{"learning_rate": 0}, {"final_fraction": 0}, {"momentum": 1}, {"weight_decay": -1}, {"warmup_share": 2}]
)
def test_wrong_settings_are_refused_by_name(values: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=f"^optimizer: {next(iter(values))}"):
        validate(OptimizerConfig, values, "optimizer")
