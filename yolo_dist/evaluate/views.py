"""Test-time augmentation: a network looks at an image several times, mirrored and in other sizes.

All boxes of all views meet in the one suppression that follows, as if the network had more anchors. The price is the
sum of the views' areas, 4.1 times the computing of one look, and as many more candidates for suppression.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from yolo_dist.config import STRIDE_LIMIT


@dataclass(frozen=True)
class View:
    """One look at an image: its size as a factor, and whether it is mirrored left to right."""

    scale: float = 1.0
    mirrored: bool = False


VIEWS = (View(), View(mirrored=True), View(0.75), View(1.25))


def boxes_of_views(boxes_of: Callable[[Tensor], Tensor], images: Tensor, views: Sequence[View] = VIEWS) -> Tensor:
    """Boxes that are found in several views of a batch, all of them in pixels of the images.

    Args:
        boxes_of: uint8 images [B, C, h, w] to boxes, float32 [B, N, 5 + classes], as `decode_heads` gives them.
        images: uint8 [B, C, H, W].
        views: how to look.

    Returns:
        float32 [B, ΣN, 5 + classes], those of the first view first.
    """
    return torch.cat([_back(boxes_of(seen(images, view)), images, view) for view in views], 1)


def seen(images: Tensor, view: View) -> Tensor:
    """Images as a view has them, uint8; sides are multiples of the largest stride, so a scale is only about kept."""
    if (size := _size(images, view)) != tuple(images.shape[2:]):
        resized = F.interpolate(images.float(), size, mode="bilinear", antialias=view.scale < 1)
        images = resized.round_().clamp_(0, 255).to(images.dtype)
    return images.flip(3) if view.mirrored else images


def _size(images: Tensor, view: View) -> tuple[int, int]:
    """(height, width) of a view in pixels."""
    height, width = images.shape[2:]
    if view.scale == 1:
        return height, width
    down, across = (max(1, round(side * view.scale / STRIDE_LIMIT)) * STRIDE_LIMIT for side in (height, width))
    return down, across


def _back(found: Tensor, images: Tensor, view: View) -> Tensor:
    """Boxes of a view, xyxy in its pixels, in those of the images."""
    height, width = images.shape[2:]
    view_height, view_width = _size(images, view)
    scale = found.new_tensor([width / view_width, height / view_height] * 2)
    left, top, right, bottom = (found[..., :4] * scale).unbind(-1)
    if view.mirrored:
        left, right = width - right, width - left
    return torch.cat((torch.stack((left, top, right, bottom), -1), found[..., 4:]), -1)
