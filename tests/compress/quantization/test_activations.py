"""The quantiser between two layers: what it does with and without a range."""

import pytest
import torch
from torch import Tensor

from yolo_dist.compress.quantization.activations import ActivationQuantizer
from yolo_dist.errors import NotCalibrated

VALUES = torch.linspace(-2, 2, 101)


def ranged(low: float = -1.0, high: float = 1.0) -> ActivationQuantizer:
    quantizer = ActivationQuantizer(8, "asymmetric", power_of_two=False)
    quantizer.set_range(torch.tensor(low), torch.tensor(high))
    return quantizer


def test_without_a_range_the_error_says_what_to_do() -> None:
    with pytest.raises(NotCalibrated, match="has no ranges yet; calibrate it on images, or open a bundle"):
        ActivationQuantizer(8, "positive", power_of_two=False)(VALUES)


def test_numbers_go_to_the_grid_over_the_range() -> None:
    quantizer = ranged()
    assert torch.equal(quantizer(VALUES), quantizer.grid().snap(VALUES))
    assert quantizer(VALUES).unique().numel() < VALUES.numel()
    assert (quantizer(VALUES).amin(), quantizer(VALUES).amax()) == pytest.approx((-1.0, 1.0), abs=0.01)


def test_an_inactive_one_changes_nothing_and_needs_no_range() -> None:
    quantizer = ActivationQuantizer(2, "symmetric", power_of_two=False)
    quantizer.active = False
    assert quantizer(VALUES) is VALUES


def test_who_watches_sees_the_numbers_before_they_are_on_the_grid() -> None:
    watched: list[Tensor] = []
    quantizer = ranged()
    quantizer.watch = watched.append
    quantizer(VALUES.clone().requires_grad_())
    (numbers,) = watched
    assert torch.equal(numbers, VALUES)
    assert not numbers.requires_grad


def test_a_range_travels_with_the_state() -> None:
    other = ActivationQuantizer(8, "asymmetric", power_of_two=False)
    other.load_state_dict(ranged(-0.5, 3).state_dict())
    assert torch.equal(other(VALUES), ranged(-0.5, 3)(VALUES))


def test_a_state_without_a_range_takes_it_away() -> None:
    quantizer = ranged()
    quantizer.load_state_dict(ActivationQuantizer(8, "asymmetric", power_of_two=False).state_dict())
    with pytest.raises(NotCalibrated):
        quantizer(VALUES)
