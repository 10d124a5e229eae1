"""Decoding against the equation, cell by cell."""

import math

import pytest
import torch

from yolo_dist.darknet.heads import Head, cell_grid, decode_heads

ANCHORS = ((10.0, 14.0), (23.0, 27.0), (37.0, 58.0))


def head(stride: int = 16, scale_x_y: float = 1.0) -> Head:
    return Head(layer=3, stride=stride, anchors=torch.tensor(ANCHORS), classes=2, scale_x_y=scale_x_y)


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


@pytest.mark.parametrize("scale", [1.0, 1.05, 1.2, 2.0])
def test_decoding_equals_the_equation_in_every_cell(scale: float) -> None:
    raw = torch.randn(2, 3, 4, 5, 7, generator=torch.Generator().manual_seed(0))
    expected = []
    for anchor, row, column in ((a, r, c) for a in range(3) for r in range(4) for c in range(5)):
        x, y, w, h, *rest = raw[1, anchor, row, column].tolist()
        centre_x = (sigmoid(x) * scale - (scale - 1) / 2 + column) * 16
        centre_y = (sigmoid(y) * scale - (scale - 1) / 2 + row) * 16
        width, height = math.exp(w) * ANCHORS[anchor][0], math.exp(h) * ANCHORS[anchor][1]
        left, top = centre_x - width / 2, centre_y - height / 2
        expected.append([left, top, left + width, top + height, *map(sigmoid, rest)])
    torch.testing.assert_close(head(scale_x_y=scale).decode(raw)[1], torch.tensor(expected), rtol=1e-4, atol=1e-4)


def test_matched_rows_decode_as_in_the_whole_map() -> None:
    raw = torch.randn(1, 3, 4, 5, 7)
    rows = head().decode(raw).view(1, 3, 4, 5, 7)
    anchor, row, column = torch.tensor([0, 2]), torch.tensor([3, 1]), torch.tensor([4, 0])
    boxes = head().decode_boxes(raw[0, anchor, row, column, :4], head().anchors[anchor], torch.stack((column, row), 1))
    torch.testing.assert_close(boxes, rows[0, anchor, row, column, :4])


def test_a_zero_output_is_the_anchor_in_the_middle_of_its_cell() -> None:
    box = head(stride=32).decode_boxes(torch.zeros(1, 4), torch.tensor([[10.0, 20.0]]), torch.tensor([[2, 1]]))
    assert box.tolist() == [[80 - 5, 48 - 10, 80 + 5, 48 + 10]]


def test_boxes_are_differentiable_and_float32_even_from_bfloat16() -> None:
    raw = torch.zeros(1, 4, dtype=torch.bfloat16, requires_grad=True)
    box = head().decode_boxes(raw, torch.tensor([[10.0, 20.0]]), torch.tensor([[0, 0]]))
    box[:, 2:].sum().backward()
    assert box.dtype == torch.float32
    assert raw.grad is not None
    assert raw.grad.tolist() == [[4.0, 4.0, 5.0, 10.0]]  # σ'(0)·stride and anchor / 2


def test_absurd_sizes_stay_finite_with_their_area() -> None:
    raw = torch.tensor([[0.0, 0.0, 500.0, 500.0]])
    box = head().decode_boxes(raw, torch.tensor([[400.0, 400.0]]), torch.tensor([[0, 0]]))
    assert torch.isfinite((box[:, 2] - box[:, 0]) * (box[:, 3] - box[:, 1])).all()


def test_cells_are_column_then_row() -> None:
    assert cell_grid(3, 2, torch.device("cpu")).tolist() == [[[0, 0], [1, 0], [2, 0]], [[0, 1], [1, 1], [2, 1]]]


def test_heads_follow_one_another() -> None:
    coarse, fine = torch.randn(2, 3, 1, 2, 7), torch.randn(2, 3, 2, 4, 7)
    rows = decode_heads([head(32), head(16)], [coarse, fine])
    assert rows.shape == (2, 3 * (2 + 8), 7)
    torch.testing.assert_close(rows[:, 6:], head(16).decode(fine))
