"""Grids of activations as a file stores them."""

import numpy as np
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper
from torch import nn

from yolo_dist.compress.quantization.activations import ActivationQuantizer
from yolo_dist.compress.quantization.grid import Grid, GridRule, lay_grid
from yolo_dist.export.graph import Graph
from yolo_dist.export.grids import StoredGrid, add_grid
from yolo_dist.export.runtime import session_options


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


@pytest.mark.parametrize("bits", [8, 16])
def test_between_scales_2k_runtimes_round_as_training_does(bits: int) -> None:
    quantizer = ActivationQuantizer(bits, "asymmetric", power_of_two=True)
    quantizer.set_range(torch.tensor(0.0), torch.tensor(1 - 2.0**-bits))
    graph = Graph(21)
    name, stored = add_grid(graph, "x", quantizer)
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n"])]
    body = graph.finish("grid", inputs, [graph.give(name, "y", ["n"])])
    model = helper.make_model(body, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), session_options(), providers=["CPUExecutionProvider"]
    )
    halves = (torch.arange(2**bits - 1) + 0.5) * stored.scale
    numbers = torch.cat([halves, torch.rand(100_000, generator=torch.Generator().manual_seed(0))])
    (found,) = session.run(None, {"x": numbers.numpy()})
    differs = (torch.from_numpy(found) != quantizer(numbers)).numpy()
    assert not differs[: len(halves)].any(), "halves go away from zero"
    assert differs[len(halves) :].mean() < 0.005
