"""From decoded predictions to detections: confidence threshold and greedy suppression within each class."""

from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

BLOCK = 256


@dataclass(frozen=True)
class Detections:
    """The objects found in one image, best first.

    Attributes:
        xyxy: left, top, right, bottom in pixels, float32 [n, 4].
        scores: objectness × class probability, float32 [n], descending.
        labels: class numbers, int32 [n].
    """

    xyxy: NDArray[np.float32] = field(default_factory=lambda: np.zeros((0, 4), np.float32))
    scores: NDArray[np.float32] = field(default_factory=lambda: np.zeros(0, np.float32))
    labels: NDArray[np.int32] = field(default_factory=lambda: np.zeros(0, np.int32))

    def __len__(self) -> int:
        return len(self.scores)

    def select(self, index: NDArray[np.bool_] | NDArray[np.int64] | slice) -> "Detections":
        """The detections that a mask, an index array or a slice picks."""
        return Detections(self.xyxy[index], self.scores[index], self.labels[index])


def non_maximum_suppression(
    decoded: Tensor, confidence: float, iou: float, max_detections: int = 300, multi_label: bool = True
) -> list[Detections]:
    """Greedy non-maximum suppression within each class.

    Args:
        decoded: float [B, N, 5 + C]: xyxy in pixels, objectness, class probabilities, on any device.
        confidence: candidates need a score above it.
        iou: of two boxes of one class that overlap by more than this, the one with the lower score goes.
        max_detections: kept of each image, the best over all classes.
        multi_label: a box is a candidate for every class above the threshold, else only for its likeliest class.

    Returns:
        B sets of detections. Equal scores keep the order of boxes and classes in `decoded`.
    """
    return [
        suppress(_candidates(image, confidence, multi_label), iou, max_detections) for image in decoded.detach().float()
    ]


def suppress(candidates: Detections, iou: float, max_detections: int) -> Detections:
    """Greedy suppression of candidates that come best first, exact and without a matrix of all pairs.

    Candidates are taken a block at a time, so that memory is bounded and the work ends once `max_detections` are kept.
    """
    kept = candidates.select(slice(0))
    for start in range(0, len(candidates), BLOCK):
        block = candidates.select(slice(start, start + BLOCK))
        block = block.select(np.logical_not(_suppresses(kept, block, iou).any(axis=0)))
        block = block.select(_greedy(np.triu(_suppresses(block, block, iou), 1)))
        kept = _joined(kept, block)
        if len(kept) >= max_detections:
            break
    return kept.select(slice(max_detections))


def _candidates(image: Tensor, confidence: float, multi_label: bool) -> Detections:
    """Scored boxes of one image, float [N, 5 + C], that pass the threshold, best first."""
    image = image[image[:, 4] > confidence]
    scores = image[:, 4:5] * image[:, 5:]
    if multi_label:
        rows, labels = torch.nonzero(scores > confidence, as_tuple=True)
    else:
        best, labels = scores.max(dim=1)
        rows = torch.nonzero(best > confidence)[:, 0]
        labels = labels[rows]
    found = Detections(
        image[rows, :4].cpu().numpy(),
        scores[rows, labels].cpu().numpy(),
        labels.to(torch.int32).cpu().numpy(),
    )
    # A network that diverges predicts infinite sizes: such boxes find nothing and would turn overlaps into NaN.
    found = found.select(np.all(np.isfinite(found.xyxy), axis=1))
    return found.select(np.argsort(-found.scores, kind="stable"))


def _suppresses(first: Detections, second: Detections, iou: float) -> NDArray[np.bool_]:
    """Whether boxes of one class overlap by more than `iou`, bool [len(first), len(second)]."""
    a, b = first.xyxy[:, None], second.xyxy[None]
    width = np.minimum(a[..., 2], b[..., 2]) - np.maximum(a[..., 0], b[..., 0])
    height = np.minimum(a[..., 3], b[..., 3]) - np.maximum(a[..., 1], b[..., 1])
    intersection = np.maximum(width, 0) * np.maximum(height, 0)
    union = _areas(first)[:, None] + _areas(second)[None] - intersection
    same_class = first.labels[:, None] == second.labels[None]
    return np.asarray(same_class & (intersection > np.float32(iou) * union))


def _areas(boxes: Detections) -> NDArray[np.float32]:
    sides = boxes.xyxy[:, 2:] - boxes.xyxy[:, :2]
    return np.asarray(sides[:, 0] * sides[:, 1])


def _greedy(suppresses: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Who survives, bool [n], where each survivor removes those behind it that `suppresses` [n, n] marks."""
    alive = np.ones(len(suppresses), np.bool_)
    for index in np.flatnonzero(suppresses.any(axis=1)):
        if alive[index]:
            alive &= ~suppresses[index]
    return alive


def _joined(first: Detections, second: Detections) -> Detections:
    return Detections(
        np.concatenate([first.xyxy, second.xyxy]),
        np.concatenate([first.scores, second.scores]),
        np.concatenate([first.labels, second.labels]),
    )
