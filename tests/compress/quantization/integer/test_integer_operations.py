"""Integer operations against loops over NumPy arrays."""

from itertools import product

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from yolo_dist.compress.quantization.integer.operations import (
    IntegerAverage,
    IntegerConcatenation,
    IntegerConvolution,
    IntegerLookup,
    IntegerMaximum,
    IntegerProduct,
    IntegerSlice,
    IntegerSum,
    IntegerUpsampling,
)
from yolo_dist.compress.quantization.integer.rescaling import IntegerGrid, Rescaling

BYTES = IntegerGrid(0.5, 10, 0, 255)
ANYWHERE = ("layers.1", (0,), (1, 1, 1), BYTES)
Integers = NDArray[np.int64]


def numbers(*shape: int, low: int = 0, high: int = 256, seed: int = 0) -> torch.Tensor:
    """Random int64 numbers low ≤ n < high."""
    return torch.randint(low, high, shape, generator=torch.Generator().manual_seed(seed))


def rescaled(accumulator: int, multiplier: int, shift: int, divisor: int = 1) -> int:
    """round(accumulator · multiplier / (2^shift · divisor)) + 10, within 0..255."""
    sign, size = np.sign(accumulator * multiplier), abs(accumulator * multiplier)
    whole = (2 * size + (divisor << shift)) // (2 * (divisor << shift))
    return int(np.clip(sign * whole + 10, 0, 255))


def to_bytes(*shifts: int, multipliers: tuple[int, ...] = (1,)) -> Rescaling:
    """To the grid `BYTES`."""
    return Rescaling(torch.tensor(shifts), 10, 0, 255, torch.tensor(multipliers))


@pytest.mark.parametrize(
    ("groups", "stride", "padding", "dilation"),
    [(1, 1, 1, 1), (1, 2, 0, 1), (2, 1, 1, 1), (4, 2, 1, 1), (1, 1, 2, 2)],
    ids=["plain", "stride", "groups", "depthwise", "dilation"],
)
def test_a_convolution_is_its_sum_of_products(groups: int, stride: int, padding: int, dilation: int) -> None:
    features = numbers(2, 4, 5, 5)
    operation = IntegerConvolution(
        *ANYWHERE,
        weight=numbers(4, 4 // groups, 3, 3, seed=1),
        weight_zero_point=torch.tensor([0, 3, 120, 255]),
        bias=torch.tensor([1000, -4000, 7, 0]),
        alignment=torch.tensor([0, 2, 0, -3]),
        source_zero_point=100,
        stride=stride,
        padding=padding,
        dilation=dilation,
        groups=groups,
        rescale=to_bytes(9, 11, 9, 6, multipliers=(1, 3, -1, 5)),
    )
    assert operation(features).equal(torch.from_numpy(looped(operation, features.numpy())))


def looped(operation: IntegerConvolution, features: Integers) -> Integers:
    """A convolution number by number, with the padding as the zero point."""
    weight, padding = operation.weight.numpy(), operation.padding
    padded = np.pad(
        features, ((0, 0), (0, 0), (padding, padding), (padding, padding)), constant_values=operation.source_zero_point
    )
    side = (padded.shape[2] - 2 * operation.dilation - 1) // operation.stride + 1
    filters, inputs = weight.shape[:2]
    outputs = np.zeros((len(features), filters, side, side), np.int64)
    assert operation.rescale is not None
    for b, o, y, x in np.ndindex(outputs.shape):
        first = o // (filters // operation.groups) * inputs
        total = 0
        for i, v, u in product(range(inputs), range(3), range(3)):
            row, column = y * operation.stride + v * operation.dilation, x * operation.stride + u * operation.dilation
            number = padded[b, first + i, row, column] - operation.source_zero_point
            total += int(number * (weight[o, i, v, u] - int(operation.weight_zero_point[o])))
        alignment = int(operation.alignment[o])
        eighths = -alignment if alignment < 0 else 0
        aligned = int(np.sign(total)) * ((abs(total) + (1 << eighths >> 1)) >> eighths) << max(alignment, 0)
        multiplier, shift = int(operation.rescale.multiplier[o]), int(operation.rescale.shift[o])
        outputs[b, o, y, x] = rescaled(aligned + int(operation.bias[o]), multiplier, shift)
    return outputs


def test_a_head_gets_accumulators_and_their_units() -> None:
    operation = IntegerConvolution(
        *("layers.1", (0,), (2, 1, 1), None),
        weight=torch.tensor([[[[2]]], [[[-3]]]]),
        weight_zero_point=torch.tensor([0, 0]),
        bias=torch.tensor([5, 1]),
        alignment=torch.tensor([0, 1]),
        source_zero_point=10,
        stride=1,
        padding=0,
        dilation=1,
        groups=1,
        rescale=None,
        units=(0.5, -0.25),
    )
    accumulators = operation(torch.tensor([[[[14]]]]))
    assert accumulators.flatten().tolist() == [2 * 4 + 5, -3 * 4 * 2 + 1]
    assert operation.values(accumulators).flatten().tolist() == [6.5, 5.75]


def test_a_sum_aligns_and_rounds_once() -> None:
    first, second = numbers(1, 2, 3, 3), numbers(1, 2, 3, 3, seed=1)
    operation = IntegerSum(*ANYWHERE, (7, 100), (3, 1), (0, 2), to_bytes(4))
    sums = (first.numpy() - 7) * 3 + (second.numpy() - 100) * 4
    assert operation(first, second).flatten().tolist() == [rescaled(int(total), 1, 4) for total in sums.flat]


def test_a_concatenation_puts_every_slice_on_one_grid() -> None:
    first, second = numbers(1, 2, 2, 2), numbers(1, 4, 2, 2, seed=1)
    operation = IntegerConcatenation(
        *ANYWHERE, (7, 100), groups=2, group_id=1, rescales=(to_bytes(1), to_bytes(5, multipliers=(17,)))
    )
    expected = [rescaled(n - 7, 1, 1) for n in first[0, 1:].flatten().tolist()]
    expected += [rescaled(n - 100, 17, 5) for n in second[0, 2:].flatten().tolist()]
    assert operation(first, second).flatten().tolist() == expected


def test_an_average_divides_and_rescales_in_one_rounding() -> None:
    features = numbers(2, 3, 5, 7)
    sums = (features - 100).sum((2, 3)).flatten().tolist()
    operation = IntegerAverage(*ANYWHERE, 100, to_bytes(2, multipliers=(3,)))
    assert operation(features).flatten().tolist() == [rescaled(total, 3, 2, divisor=35) for total in sums]


def test_a_product_multiplies_every_channel_by_its_gate() -> None:
    features, gate = numbers(1, 2, 1, 2), numbers(1, 2, 1, 1, seed=1)
    operation = IntegerProduct(*ANYWHERE, (100, 3), to_bytes(7))
    (a, b), (c, d) = features[0, :, 0].tolist()
    g, h = gate.flatten().tolist()
    expected = [rescaled((n - 100) * (m - 3), 1, 7) for n, m in ((a, g), (b, g), (c, h), (d, h))]
    assert operation(features, gate).flatten().tolist() == expected


def test_padding_never_is_a_maximum() -> None:
    features = torch.tensor([[[[-5, -3], [-7, -128]]]])
    assert IntegerMaximum(*ANYWHERE, 2, 1, 0, 1)(features).flatten().tolist() == [-3, -3, -7, -128]
    assert IntegerMaximum(*ANYWHERE, 3, 2, 1, 1)(features).flatten().tolist() == [-3]


def test_a_table_an_enlargement_and_a_slice() -> None:
    features = torch.tensor([[[[-2, 1]], [[0, -1]]]])
    assert IntegerLookup(*ANYWHERE, -2, torch.tensor([9, 8, 7, 6]))(features).flatten().tolist() == [9, 6, 7, 8]
    assert IntegerUpsampling(*ANYWHERE, 2)(features[:, :1])[0, 0].tolist() == [[-2, -2, 1, 1]] * 2
    assert IntegerSlice(*ANYWHERE, 2, 1)(features).flatten().tolist() == [0, -1]
