"""Weights and biases as the integers of a file."""

from typing import Any

import numpy as np
import pytest
import torch

from yolo_dist.compress.quantization.layers import DeployedConvolution
from yolo_dist.export.weights import LARGEST_BIAS, in_seven_bits, store_weights, with_room_for_bias


def filters(*rows: list[float]) -> torch.Tensor:
    """Filters of two weights each, [O, 2, 1, 1]."""
    return torch.tensor(rows)[:, :, None, None]


@pytest.mark.parametrize(
    ("steps", "zero_points", "scale", "values", "dtype"),
    [
        pytest.param([-127, 5], [0], 0.1, [-127, 5], np.int8, id="signed"),
        pytest.param([-127, 5], [0], -0.1, [127, -5], np.int8, id="a negative scale goes into the sign"),
        pytest.param([-128, 5], [0], -0.1, [-128, 5], np.int8, id="unless int8 does not hold it"),
        pytest.param([0, 15], [7], 0.1, [-7, 8], np.int8, id="few unsigned bits"),
        pytest.param([0, 255], [100], 0.1, [0, 255], np.uint8, id="8 unsigned bits"),
        pytest.param([-255, 255], [0], 0.1, [-255, 255], np.int16, id="8 bits of dorefa"),
    ],
)
def test_weights_take_the_type_that_holds_them(
    steps: list[float], zero_points: list[float], scale: float, values: list[int], dtype: Any
) -> None:
    stored = store_weights(filters(steps), torch.tensor(zero_points), torch.tensor([scale]))
    assert stored is not None
    assert stored.values.dtype == dtype
    assert stored.values.ravel().tolist() == values
    real = (stored.values.astype(float) - stored.zero_point) * stored.scale[:, None, None, None]
    np.testing.assert_allclose(real.ravel(), (np.array(steps) - zero_points[0]) * scale, rtol=1e-6)


def test_filters_with_zero_points_of_their_own_are_stored_around_zero() -> None:
    stored = store_weights(filters([0, 255], [0, 255]), torch.tensor([0.0, 9.0]), torch.ones(2))
    assert stored is not None
    assert stored.zero_point == 0
    assert stored.values.reshape(2, 2).tolist() == [[0, 255], [-9, 246]]


def test_no_type_holds_17_bits() -> None:
    assert store_weights(filters([-65535, 65535]), torch.zeros(1), torch.ones(1)) is None


def test_few_bits_are_spread_over_seven() -> None:
    layer = in_seven_bits(DeployedConvolution(filters([-8, 7]), torch.zeros(1), torch.tensor([0.5]), torch.ones(1)))
    assert layer.steps.flatten().tolist() == [-32, 28]
    assert layer.scale.item() == 0.125


@pytest.mark.parametrize("bits", range(2, 8))
def test_two_products_of_weights_of_fewer_than_8_bits_fit_into_16_bits(bits: int) -> None:
    lowest, highest = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
    weights = filters([lowest, highest])
    steps = in_seven_bits(DeployedConvolution(weights, torch.zeros(1), torch.ones(1), torch.ones(1))).steps
    assert 2 * 255 * steps.min() >= -(2**15)
    assert 2 * 255 * steps.max() < 2**15


def test_a_dead_filter_gets_a_scale_at_which_its_bias_fits() -> None:
    dead = DeployedConvolution(
        filters([100, -3], [100, -3]), torch.zeros(2), torch.tensor([-1e-12, 0.01]), torch.full((2,), 2.0)
    )
    layer = with_room_for_bias(dead, input_scale=0.1)
    assert (layer.bias / (0.1 * layer.scale)).abs().max() <= LARGEST_BIAS * (1 + 1e-6)
    assert layer.steps[0].abs().max() <= 1
    assert layer.steps[1].flatten().tolist() == [100, -3]
    assert layer.scale[1] == dead.scale[1]
