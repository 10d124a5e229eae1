"""Schemes against their formulas, written out in NumPy."""

import math

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from yolo_dist.compress.quantization.schemes import SCHEMES, WeightRule, dorefa_weights, google_weights

Array = NDArray[np.float64]
BITS = (2, 4, 8, 16)


def filters(seed: int = 0, shape: tuple[int, ...] = (6, 4, 3, 3)) -> Tensor:
    """Filters of very different sizes, one of them all positive."""
    weight = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    weight *= torch.logspace(-2, 0.5, shape[0]).view(-1, 1, 1, 1)
    weight[-1].abs_()
    return weight


def half_away(values: Array) -> Array:
    return np.asarray(np.sign(values) * np.floor(np.abs(values) + 0.5))


def google(weight: Array, bits: int, symmetric: bool) -> Array:
    """One tensor, or one filter, on its grid."""
    if symmetric:
        scale = np.abs(weight).max() / (2 ** (bits - 1) - 1)
        return np.asarray(half_away(weight / scale) * scale)
    low, high = min(weight.min(), 0), max(weight.max(), 0)
    scale = (high - low) / (2**bits - 1)
    zero_point = half_away(-low / scale)
    return np.asarray((np.clip(half_away(weight / scale) + zero_point, 0, 2**bits - 1) - zero_point) * scale)


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("per_channel", [True, False])
def test_google_spreads_steps_over_the_range_of_the_weights(bits: int, symmetric: bool, per_channel: bool) -> None:
    weight = filters()
    quantized = google_weights(weight, WeightRule(bits, symmetric, per_channel))
    parts = weight.double().numpy()
    expected = (
        np.stack([google(part, bits, symmetric) for part in parts]) if per_channel else google(parts, bits, symmetric)
    )
    np.testing.assert_allclose(quantized.values, expected, atol=float(quantized.scale.max()) * 1e-3 + 1e-6)
    assert torch.equal(quantized.steps, quantized.steps.round())
    ends = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if symmetric else (0, 2**bits - 1)
    assert ends[0] <= quantized.steps.min()
    assert quantized.steps.max() <= ends[1]
    assert quantized.scale.shape == ((6, 1, 1, 1) if per_channel else ())


def dorefa(weight: Array, bits: int, largest: Array) -> tuple[Array, NDArray[np.bool_]]:
    """Zhou et al. 2016, eq. 9, with the scale restored; and where float32 may not see on which side of a tie it is."""
    quotients = (np.tanh(weight) / (2 * largest) + 0.5) * (2**bits - 1)
    tie = np.abs(quotients % 1 - 0.5) < 0.02
    return (2 * np.floor(quotients + 0.5) / (2**bits - 1) - 1) * largest, tie


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("per_channel", [True, False])
def test_dorefa_is_its_formula(bits: int, per_channel: bool) -> None:
    weight = filters(1)
    quantized = dorefa_weights(weight, WeightRule(bits, per_channel=per_channel))
    parts = weight.double().numpy()
    magnitude = np.abs(np.tanh(parts))
    largest = magnitude.max((1, 2, 3), keepdims=True) if per_channel else magnitude.max()
    expected, tie = dorefa(parts, bits, np.asarray(largest))
    assert tie.mean() < 0.3
    np.testing.assert_allclose(quantized.values.numpy()[~tie], expected[~tie], rtol=1e-5, atol=1e-6)
    assert (quantized.steps.remainder(2) == 1).all(), "the steps are odd"
    assert quantized.steps.abs().max() == 2**bits - 1


def test_google_passes_gradients_straight_through() -> None:
    weight = filters().requires_grad_()
    factors = torch.randn(weight.shape, generator=torch.Generator().manual_seed(2))
    for per_channel in (True, False):
        values = google_weights(weight, WeightRule(8, per_channel=per_channel)).values
        (gradient,) = torch.autograd.grad((values * factors).sum(), weight)
        torch.testing.assert_close(gradient, factors)


def test_dorefa_passes_gradients_through_its_tanh() -> None:
    weight = filters().requires_grad_()
    factors = torch.randn(weight.shape, generator=torch.Generator().manual_seed(2))
    values = dorefa_weights(weight, WeightRule(4)).values
    (gradient,) = torch.autograd.grad((values * factors).sum(), weight)
    torch.testing.assert_close(gradient, factors * (1 - weight.tanh().square()), rtol=1e-4, atol=1e-5)


every_scheme = pytest.mark.parametrize("scheme", sorted(SCHEMES))
both = pytest.mark.parametrize("per_channel", [True, False])


@every_scheme
@both
def test_scales_can_be_powers_of_two(scheme: str, per_channel: bool) -> None:
    free, shifted = (
        SCHEMES[scheme].weights(filters(), WeightRule(8, per_channel=per_channel, power_of_two=power_of_two))
        for power_of_two in (False, True)
    )
    assert all(math.log2(scale).is_integer() for scale in shifted.scale.flatten().tolist())
    ratio = shifted.scale / free.scale
    assert (ratio >= 2 / 3 - 1e-6).all()
    assert (ratio <= 4 / 3 + 1e-6).all()


@every_scheme
@both
def test_the_values_are_steps_times_scale(scheme: str, per_channel: bool) -> None:
    one = SCHEMES[scheme].weights(filters(), WeightRule(4, per_channel=per_channel))
    assert torch.equal(one.values, (one.steps - one.zero_point) * one.scale)


@both
@pytest.mark.parametrize("symmetric", [True, False])
def test_google_keeps_weights_that_are_zero(symmetric: bool, per_channel: bool) -> None:
    weight = filters()
    weight[2] = 0
    rule = WeightRule(4, symmetric, per_channel)
    assert (google_weights(weight, rule).values[2] == 0).all()
    assert (google_weights(torch.zeros_like(weight), rule).values == 0).all()


@both
def test_dorefa_has_no_zero_but_stays_finite_without_weights(per_channel: bool) -> None:
    weight = torch.zeros(2, 1, 1, 1)
    quantized = dorefa_weights(weight, WeightRule(4, per_channel=per_channel))
    assert (quantized.values.abs() <= 1).all()
    assert torch.isfinite(quantized.values).all()


@every_scheme
def test_weights_that_are_no_numbers_stay_visible(scheme: str) -> None:
    weight = filters()
    weight[1, 0, 0, 0] = float("nan")
    for per_channel in (True, False):
        values = SCHEMES[scheme].weights(weight, WeightRule(8, per_channel=per_channel)).values
        assert torch.isnan(values[1, 0, 0, 0])


@every_scheme
def test_a_filter_alone_is_quantised_as_among_others_when_each_has_its_scale(scheme: str) -> None:
    weight, rule = filters(), WeightRule(3, per_channel=True)
    whole = SCHEMES[scheme].weights(weight, rule).values
    for number in range(len(weight)):
        assert torch.equal(whole[number], SCHEMES[scheme].weights(weight[number : number + 1], rule).values[0])
