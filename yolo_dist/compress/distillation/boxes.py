"""Boxes of student, teacher and truth where objects are, in units of a head's grid."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from yolo_dist.compress.distillation.strategy import Comparison, Matched
from yolo_dist.darknet.heads import Head


@dataclass(frozen=True)
class GridBoxes:
    """Boxes of one head, one row a match: centre from the cell's corner, width and height, in cells, float [M, 4]."""

    student: Tensor
    teacher: Tensor
    truth: Tensor


def grid_boxes(batch: Comparison) -> Iterator[GridBoxes]:
    """The matched boxes of every head."""
    student, teacher = batch.student, batch.teacher
    for number, match in enumerate(batch.matches):
        ours, theirs = student.heads[number], teacher.heads[number]
        yield GridBoxes(
            _predicted(ours, student.raws[number], match),
            _predicted(theirs, teacher.raws[number], match),
            _in_cells(match.boxes, match, ours.stride),
        )


def squared_distance(boxes: Tensor, others: Tensor) -> Tensor:
    """Squared distance of box pairs, float [M, 4] → [M]."""
    return (boxes - others).square().sum(dim=1)


def _predicted(head: Head, raw: Tensor, match: Matched) -> Tensor:
    column, row = match.cell.unbind(1)
    rows = raw[match.image, match.anchor, row, column]
    anchors = head.anchors.to(rows, non_blocking=True)[match.anchor]
    return _in_cells(head.decode_boxes(rows[:, :4], anchors, match.cell), match, head.stride)


def _in_cells(boxes: Tensor, match: Matched, stride: int) -> Tensor:
    centre, size = (boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]
    return torch.cat((centre / stride - match.cell, size / stride), dim=1)
