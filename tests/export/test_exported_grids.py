"""Grids of activations as a file stores them."""

import numpy as np
import pytest
import torch
from torch import nn

from yolo_dist.compress.quantization.grid import Grid, GridRule, lay_grid
from yolo_dist.export.grids import StoredGrid


def grid(rule: GridRule, bits: int, low: float = -1.0, high: float = 3.0, power_of_two: bool = False) -> Grid:
    return lay_grid(torch.tensor(low), torch.tensor(high), bits, rule, power_of_two)


@pytest.mark.parametrize(
    ("rule", "bits", "ends", "dtype"),
    [
        ("symmetric", 8, (0, 255), np.uint8),
        ("symmetric", 4, (120, 135), np.uint8),
        ("asymmetric", 8, (0, 255), np.uint8),
        ("positive", 4, (0, 15), np.uint8),
        ("symmetric", 16, (0, 65535), np.uint16),
        ("symmetric", 12, (30720, 34815), np.uint16),
    ],
)
def test_every_step_stands_for_the_same_number_as_before(
    rule: GridRule, bits: int, ends: tuple[int, int], dtype: type[np.unsignedinteger]
) -> None:
    original = grid(rule, bits)
    stored = StoredGrid.of(original)
    assert (stored.lowest, stored.highest) == ends
    assert stored.dtype is dtype
    for step, unsigned in ((original.lowest, stored.lowest), (original.highest, stored.highest)):
        assert float(original.values(torch.tensor(float(step)))) == pytest.approx(
            (unsigned - stored.zero_point) * stored.scale
        )


def test_a_clamp_is_a_part_of_the_grid() -> None:
    stored = StoredGrid.of(grid("symmetric", 8, high=12.7))
    assert stored.clamped(nn.Identity()) == stored
    assert (stored.clamped(nn.ReLU()).lowest, stored.clamped(nn.ReLU()).highest) == (128, 255)
    assert (stored.clamped(nn.ReLU6()).lowest, stored.clamped(nn.ReLU6()).highest) == (128, 188)


def test_only_scales_between_which_halves_are_frequent_are_moved() -> None:
    shifts, other = StoredGrid.of(grid("symmetric", 8, power_of_two=True)), StoredGrid.of(grid("symmetric", 8))
    assert other.rounding_scale == other.scale
    steps = np.array([0.5, 1.5, 2.5, 126.5]) * shifts.scale
    assert np.rint(steps.astype(np.float32) / np.float32(shifts.rounding_scale)).tolist() == [1, 2, 3, 127]
    assert shifts.open.rounding_scale == shifts.scale
