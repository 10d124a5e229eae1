"""Rescaling by integers, against exact fractions."""

from fractions import Fraction

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from yolo_dist.compress.quantization.integer.rescaling import (
    Rescaling,
    bit_length,
    common_shift,
    multiplier_and_shift,
    shift_right,
)


def half_away(number: Fraction) -> int:
    """The nearest whole number, halves away from zero."""
    whole = int(abs(number) + Fraction(1, 2))
    return whole if number >= 0 else -whole


@given(st.integers(-(2**40), 2**40), st.integers(-20, 61), st.sampled_from([1, 3, 169]))
def test_a_shift_rounds_halves_away_from_zero(number: int, bits: int, parts: int) -> None:
    shifted = shift_right(torch.tensor([number]), torch.tensor([bits]), parts)
    assert shifted.item() == half_away(Fraction(number) / (Fraction(2) ** bits * parts))


@pytest.mark.parametrize(("number", "expected"), [(5, 3), (4, 2), (3, 2), (-5, -3), (-3, -2), (1, 1), (-1, -1), (0, 0)])
def test_halves(number: int, expected: int) -> None:
    assert shift_right(torch.tensor([number]), torch.tensor([1])).item() == expected


@given(
    st.floats(2.0**-40, 2.0**20),
    st.sampled_from([1.0, -1.0]),
    st.integers(1, 30),
    st.data(),
)
def test_a_multiplier_and_a_shift_are_the_factor(factor: float, sign: float, bits: int, data: st.DataObject) -> None:
    largest = 2**bits - 1
    multiplier, shift = multiplier_and_shift(
        torch.tensor([sign * factor], dtype=torch.float64), torch.tensor([largest])
    )
    assert abs(multiplier.item()) * largest < 2**62
    accumulator = data.draw(st.integers(-largest, largest))
    rescaled = int(shift_right(torch.tensor([accumulator]) * multiplier, shift))
    exact = Fraction(sign * factor) * accumulator
    assert abs(rescaled - exact) <= Fraction(1, 2) + abs(exact) / 2**30


@given(st.integers(-60, 20))
def test_a_power_of_two_is_a_shift_alone(exponent: int) -> None:
    multiplier, shift = multiplier_and_shift(torch.tensor([2.0**exponent], dtype=torch.float64), torch.tensor([2**30]))
    assert (multiplier.item(), shift.item()) == (1, -exponent)


def test_a_factor_too_small_for_any_shift_gives_zero() -> None:
    multiplier, shift = multiplier_and_shift(torch.tensor([3e-30], dtype=torch.float64), torch.tensor([2**40]))
    assert shift_right(torch.tensor([2**40]) * multiplier, shift).item() == 0


def test_a_factor_too_large_for_any_grid_still_gives_its_end() -> None:
    multiplier, shift = multiplier_and_shift(torch.tensor([1e25], dtype=torch.float64), torch.tensor([2**30]))
    rescale = Rescaling(shift, zero_point=0, lowest=-128, highest=127, multiplier=multiplier)
    accumulators = torch.tensor([0, 1, -1, 2**30]).view(1, 1, 1, 4)
    assert rescale(accumulators).flatten().tolist() == [0, 127, -128, 127]


@given(st.lists(st.floats(2.0**-12, 2.0**6), min_size=1, max_size=4))
def test_a_common_shift_aligns_every_factor(factors: list[float]) -> None:
    multipliers, alignments, shift = common_shift(factors, largest=1 << 12)
    for factor, multiplier, alignment in zip(factors, multipliers, alignments, strict=True):
        assert multiplier * Fraction(2) ** (alignment - shift) == pytest.approx(Fraction(factor), rel=2**-12)


def test_powers_of_two_are_aligned_to_the_smallest() -> None:
    assert common_shift([0.25, 2.0, 0.5], largest=1 << 12) == ((1, 1, 1), (0, 3, 1), 2)


@given(st.integers(-(2**61), 2**61))
def test_bit_length_is_that_of_python(number: int) -> None:
    assert bit_length(torch.tensor([number])).item() == number.bit_length()
