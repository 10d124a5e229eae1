"""The score threshold to work at: where F1 is best at IoU 0.5, pooled over classes."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from faster_coco_eval.core import mask
from numpy.typing import NDArray

from yolo_dist.data.annotations import ANY_CLASS, Boxes
from yolo_dist.evaluate.coco import xywh
from yolo_dist.evaluate.nms import Detections

IOU = 0.5


@dataclass(frozen=True)
class OperatingPoint:
    """Precision, recall and F1 of the detections that score at least `confidence`; all 0 if none is right."""

    confidence: float = 0.0
    precision: float = 0.0
    recall: float = 0.0
    f1: float = 0.0


def best_f1(truth: Sequence[Boxes], detections: Sequence[Detections], max_detections: int = 100) -> OperatingPoint:
    """The threshold with the best F1 = 2·TP / (detections + objects), the highest one of equals.

    Matching is the COCO protocol's at IoU 0.5: ignored boxes and detections inside them count on neither side.

    Args:
        truth: boxes of each image.
        detections: of the same images in the same order.
        max_detections: the best ones of each image and class that count.
    """
    objects = sum(int((~boxes.ignore).sum()) for boxes in truth)
    outcomes = list(_outcomes(truth, detections, max_detections))
    if not any(right.any() for _, right in outcomes):
        return OperatingPoint()
    scores, right = (np.concatenate(column) for column in zip(*outcomes, strict=True))
    order = np.argsort(-scores, kind="stable")
    scores, right = scores[order], np.cumsum(right[order])
    # A threshold cannot part detections of equal score: only the last of each run is a choice.
    ends = np.flatnonzero(np.append(scores[1:] != scores[:-1], True))
    f1 = 2 * right[ends] / (ends + 1 + objects)
    best = ends[np.argmax(f1)]
    return OperatingPoint(
        confidence=float(scores[best]),
        precision=float(right[best] / (best + 1)),
        recall=float(right[best] / objects),
        f1=float(f1.max()),
    )


def match(truth: Boxes, found: Detections) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Match detections, best first within each class, with the objects of their image as the COCO protocol does.

    Each takes the free object of its class that it overlaps most, the later one of equals, if the IoU reaches 0.5; a
    box marked `ignore` takes any number of the rest of its class, or of all classes where its label is `ANY_CLASS`.

    Returns:
        Whether each detection is right and whether it counts at all, both bool [n].
    """
    right, counts = np.zeros(len(found), np.bool_), np.ones(len(found), np.bool_)
    if not len(truth) or not len(found):
        return right, counts
    overlaps = np.asarray(mask.iou(xywh(found.xyxy), xywh(truth.xyxy), truth.ignore.astype(int).tolist()))
    overlaps[(found.labels[:, None] != truth.labels) & (truth.labels != ANY_CLASS)] = 0.0
    free = np.where(truth.ignore, 0.0, overlaps)
    for row in np.flatnonzero((free >= IOU).any(axis=1)):
        taken = len(truth) - 1 - int(np.argmax(free[row, ::-1]))
        if free[row, taken] >= IOU:
            right[row] = True
            free[:, taken] = 0.0
    counts = right | ~(overlaps[:, truth.ignore] >= IOU).any(axis=1)
    return right, counts


def _outcomes(
    truth: Sequence[Boxes], detections: Sequence[Detections], max_detections: int
) -> Iterator[tuple[NDArray[np.float32], NDArray[np.bool_]]]:
    """Scores and rightness of the detections that count, for each image."""
    for boxes, found in zip(truth, detections, strict=True):
        best = _best_of_each_class(found, max_detections)
        right, counts = match(boxes, best)
        yield best.scores[counts], right[counts]


def _best_of_each_class(found: Detections, limit: int) -> Detections:
    """Class by class, best first, at most `limit` of each."""
    ordered = found.select(np.lexsort((-found.scores, found.labels)))
    rank = np.arange(len(ordered)) - np.searchsorted(ordered.labels, ordered.labels)
    return ordered.select(rank < limit)
