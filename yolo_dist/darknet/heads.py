"""Detection heads: from raw outputs to boxes (Redmon & Farhadi 2018, §2.1; `scale_x_y` from YOLOv4)."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

LARGEST_LOG_SCALE = 16.0
"""e¹⁶ anchors are wider than any image, while e⁴⁴ anchors have an area that float32 cannot hold."""


@dataclass(frozen=True, eq=False)
class Head:
    """One yolo layer.

    Attributes:
        layer: its index in the cfg.
        stride: image pixels a cell, which follows from the graph.
        anchors: width and height in pixels, float32 [A, 2], on the CPU.
        classes: number of classes.
        scale_x_y: how far a centre may leave its cell; 1 means not at all.
    """

    layer: int
    stride: int
    anchors: Tensor
    classes: int
    scale_x_y: float = 1.0

    def decode_boxes(self, raw: Tensor, anchors: Tensor, cells: Tensor) -> Tensor:
        """Boxes of raw x, y, w, h.

        Differentiable and in float32 whatever comes in; shapes broadcast.

        Args:
            raw: network outputs [..., 4].
            anchors: width and height in pixels [..., 2].
            cells: column and row of the cell [..., 2].

        Returns:
            xyxy in pixels of the network's input, float32 [..., 4].
        """
        raw = raw.float()
        offset = raw[..., :2].sigmoid() * self.scale_x_y - (self.scale_x_y - 1) / 2
        centre = (offset + cells) * self.stride
        half = raw[..., 2:4].clamp(max=LARGEST_LOG_SCALE).exp() * anchors / 2
        return torch.cat((centre - half, centre + half), -1)

    def decode(self, raw: Tensor) -> Tensor:
        """All rows of a raw output.

        Args:
            raw: network output [B, A, h, w, 5 + classes].

        Returns:
            float32 [B, A·h·w, 5 + classes]: xyxy in pixels of the network's input, then the probabilities of an
            object and of each class given one.
        """
        raw = raw.float()
        cells = cell_grid(raw.shape[3], raw.shape[2], raw.device)
        boxes = self.decode_boxes(raw[..., :4], self.anchors.to(raw.device)[:, None, None], cells)
        return torch.cat((boxes, raw[..., 4:].sigmoid()), -1).flatten(1, 3)


def cell_grid(width: int, height: int, device: torch.device) -> Tensor:
    """Column and row of every cell, float32 [height, width, 2]."""
    columns = torch.arange(width, device=device, dtype=torch.float32)
    rows = torch.arange(height, device=device, dtype=torch.float32)
    return torch.stack(torch.meshgrid(columns, rows, indexing="xy"), -1)


def decode_heads(heads: Sequence[Head], raws: Sequence[Tensor]) -> Tensor:
    """The rows of all heads one after another, float32 [B, N, 5 + classes]; see `Head.decode`."""
    return torch.cat([head.decode(raw) for head, raw in zip(heads, raws, strict=True)], 1)
