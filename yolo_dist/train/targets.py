"""Which anchors of which cells answer for which boxes."""

from collections.abc import Sequence
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from yolo_dist.darknet.heads import Head

ANCHOR_IOU = 0.20
"""An anchor answers for a box when the IoU of their widths and heights is above this."""


@dataclass(frozen=True)
class Matches:
    """Pairs of a box and an anchor of one head; all tensors have one row a pair.

    Attributes:
        image: image of the batch, int64 [M].
        anchor: anchor of the head, int64 [M].
        cell: column and row of the cell, int64 [M, 2].
        boxes: xyxy in input pixels, float32 [M, 4].
        labels: class of the box, int64 [M].
    """

    image: Tensor
    anchor: Tensor
    cell: Tensor
    boxes: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def to(self, device: torch.device) -> "Matches":
        """The matches on a device, which nothing waits for."""
        return Matches(*(getattr(self, one.name).to(device, non_blocking=True) for one in fields(self)))


def assign(head: Head, grid: tuple[int, int], boxes: Tensor, labels: Tensor, image_index: Tensor) -> Matches:
    """Match every box with every anchor of a head whose wh-IoU with it exceeds 0.20.

    Args:
        head: the head.
        grid: (columns, rows) of its output.
        boxes: xyxy in input pixels, float32 [n, 4].
        labels: classes, int64 [n].
        image_index: which image of the batch each box is on, int64 [n].
    """
    sizes = boxes[:, 2:] - boxes[:, :2]
    anchors = torch.as_tensor(head.anchors, dtype=boxes.dtype, device=boxes.device)
    box, anchor = torch.nonzero(size_iou(sizes, anchors) > ANCHOR_IOU, as_tuple=True)
    centres = (boxes[box, :2] + boxes[box, 2:]) / 2
    last = torch.tensor([grid[0] - 1, grid[1] - 1], device=boxes.device)
    cell = (centres / head.stride).long().clamp(min=0).minimum(last)
    return Matches(image_index[box], anchor, cell, boxes[box], labels[box])


def size_iou(sizes: Tensor, anchors: Tensor) -> Tensor:
    """IoU of boxes and anchors laid on one corner: float [n, 2] and [A, 2] → [n, A]."""
    shared = torch.minimum(sizes[:, None], anchors[None]).prod(dim=2)
    return shared / (sizes.prod(dim=1)[:, None] + anchors.prod(dim=1)[None] - shared)


def assign_all(
    heads: Sequence[Head], image_size: tuple[int, int], boxes: Tensor, labels: Tensor, image_index: Tensor
) -> list[Matches]:
    """`assign` for every head; `image_size` is the input's (width, height) in pixels.

    On the CPU, where the boxes come from: how many matches there are is known only once they are found, and a GPU would
    have to be waited for.
    """
    return [
        assign(head, (image_size[0] // head.stride, image_size[1] // head.stride), boxes, labels, image_index)
        for head in heads
    ]
