"""Assignment: which anchors of which cells answer for which boxes, against loops over everything."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from yolo_dist.darknet.heads import Head
from yolo_dist.train.targets import Matches, assign, assign_all, size_iou

HEAD = Head(layer=0, stride=16, anchors=torch.tensor([[10.0, 14.0], [40.0, 30.0], [90.0, 100.0]]), classes=3)
GRID = (6, 4)
"""Columns and rows of a 96×64 image at stride 16."""

coordinates = st.integers(-160, 320).map(lambda eighths: eighths / 2)
boxes = st.tuples(coordinates, coordinates, st.integers(1, 240), st.integers(1, 240)).map(
    lambda box: [box[0], box[1], box[0] + box[2] / 2, box[1] + box[3] / 2]
)


def by_loops(head: Head, grid: tuple[int, int], boxes: Tensor, labels: Tensor, image: Tensor) -> set[tuple[float, ...]]:
    """One box and one anchor at a time: image, anchor, column, row, box, label."""
    found = set()
    for box, label, number in zip(boxes.tolist(), labels.tolist(), image.tolist(), strict=True):
        width, height = box[2] - box[0], box[3] - box[1]
        for anchor, (wide, high) in enumerate(head.anchors.tolist()):
            shared = min(width, wide) * min(height, high)
            if shared / (width * height + wide * high - shared) <= 0.2:
                continue
            column = math.floor((box[0] + box[2]) / 2 / head.stride)
            row = math.floor((box[1] + box[3]) / 2 / head.stride)
            cell = (min(max(column, 0), grid[0] - 1), min(max(row, 0), grid[1] - 1))
            found.add((number, anchor, *cell, *box, label))
    return found


def as_set(matches: Matches) -> set[tuple[float, ...]]:
    rows = zip(
        matches.image.tolist(),
        matches.anchor.tolist(),
        matches.cell.tolist(),
        matches.boxes.tolist(),
        matches.labels.tolist(),
        strict=True,
    )
    return {(image, anchor, *cell, *box, label) for image, anchor, cell, box, label in rows}


@given(st.lists(boxes, max_size=12))
def test_matches_are_those_that_loops_find(drawn: list[list[float]]) -> None:
    tensor = torch.tensor(drawn).reshape(-1, 4)
    labels, image = torch.arange(len(drawn)) % 3, torch.arange(len(drawn)) // 3
    matches = assign(HEAD, GRID, tensor, labels, image)
    assert as_set(matches) == by_loops(HEAD, GRID, tensor, labels, image)
    assert len(matches) == len(as_set(matches)) or len({tuple(box) for box in drawn}) < len(drawn)


@pytest.mark.parametrize(
    ("box", "cell"),
    [
        pytest.param((10, 10, 50, 40), (1, 1), id="centre inside"),
        pytest.param((12, 1, 52, 31), (2, 1), id="centre on the line between cells belongs to the right and lower one"),
        pytest.param((76, 44, 116, 84), (5, 3), id="centre on the last pixel's border"),
        pytest.param((-30, -20, 10, 10), (0, 0), id="centre outside at the top left"),
        pytest.param((-80, -60, -40, -30), (0, 0), id="cells beyond the top left"),
        pytest.param((90, 60, 130, 90), (5, 3), id="centre outside at the bottom right"),
    ],
)
def test_cells_are_clamped_to_the_grid(box: tuple[float, ...], cell: tuple[int, int]) -> None:
    matches = assign(HEAD, GRID, torch.tensor([box], dtype=torch.float32), torch.zeros(1).long(), torch.zeros(1).long())
    assert 1 in matches.anchor.tolist()
    assert {tuple(found) for found in matches.cell.tolist()} == {cell}


def test_one_box_may_have_several_anchors_and_one_cell_several_boxes() -> None:
    twice = torch.tensor([[10.0, 10.0, 40.0, 34.0]] * 2)
    matches = assign(HEAD, GRID, twice, torch.tensor([0, 2]), torch.zeros(2).long())
    assert matches.anchor.tolist() == [1, 1]
    assert matches.labels.tolist() == [0, 2]
    wide = torch.tensor([[0.0, 0.0, 60.0, 60.0]])
    assert assign(HEAD, GRID, wide, torch.tensor([0]), torch.tensor([0])).anchor.tolist() == [1, 2]


def test_an_overlap_of_exactly_a_fifth_is_too_little() -> None:
    head = Head(layer=0, stride=16, anchors=torch.tensor([[10.0, 10.0]]), classes=1)
    fifth, more = torch.tensor([[0.0, 0.0, 2.0, 10.0]]), torch.tensor([[0.0, 0.0, 2.001, 10.0]])
    zero = torch.zeros(1).long()
    assert len(assign(head, GRID, fifth, zero, zero)) == 0
    assert len(assign(head, GRID, more, zero, zero)) == 1


def test_no_boxes_give_no_matches_of_the_right_types() -> None:
    nothing = torch.zeros(0).long()
    matches = assign(HEAD, GRID, torch.zeros(0, 4), nothing, nothing)
    assert len(matches) == 0
    assert matches.boxes.shape == (0, 4)
    assert matches.cell.shape == (0, 2)
    assert {matches.image.dtype, matches.anchor.dtype, matches.cell.dtype, matches.labels.dtype} == {torch.int64}


def test_a_box_without_area_matches_nothing() -> None:
    zero = torch.zeros(1).long()
    assert len(assign(HEAD, GRID, torch.tensor([[5.0, 5.0, 5.0, 9.0]]), zero, zero)) == 0


def test_iou_of_sizes() -> None:
    found = size_iou(torch.tensor([[2.0, 4.0], [4.0, 4.0]]), torch.tensor([[2.0, 2.0], [4.0, 4.0]]))
    torch.testing.assert_close(found, torch.tensor([[0.5, 0.5], [0.25, 1.0]]))


def test_every_head_has_its_own_grid() -> None:
    heads = [Head(layer=i, stride=s, anchors=torch.tensor([[30.0, 30.0]]), classes=1) for i, s in enumerate((8, 32))]
    box, zero = torch.tensor([[60.0, 30.0, 90.0, 60.0]]), torch.zeros(1).long()
    fine, coarse = assign_all(heads, (96, 64), box, zero, zero)
    assert fine.cell.tolist() == [[9, 5]]
    assert coarse.cell.tolist() == [[2, 1]]
