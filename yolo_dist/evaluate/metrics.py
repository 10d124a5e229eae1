"""The COCO protocol on boxes, and precision and recall where F1 is best."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from yolo_dist.config import Config
from yolo_dist.data.annotations import Boxes
from yolo_dist.evaluate.coco import (
    ABSENT,
    ALL,
    IOU_50,
    IOU_75,
    LARGE,
    MEDIUM,
    SMALL,
    interpolated_precision,
    object_counts,
)
from yolo_dist.evaluate.nms import Detections
from yolo_dist.evaluate.operating_point import best_f1


@dataclass(frozen=True)
class GroundTruth:
    """What there is to find in one image; width and height in pixels."""

    image_id: str
    width: int
    height: int
    boxes: Boxes


class ClassMetrics(Config):
    """How well one class is found; None where the set has no object of it."""

    map: float | None
    """Average precision, mean over IoU 0.50:0.95."""
    map50: float | None
    """Average precision at IoU 0.5."""
    objects: int
    """Objects of the class, ignored ones left out."""


class PrecisionRecall(Config):
    """Precision at IoU 0.5 for the recalls 0, 0.01, …, 1: 101 numbers a curve."""

    mean: tuple[float, ...]
    """Over the classes that have objects."""
    per_class: dict[str, tuple[float, ...]]
    """Classes without objects are left out."""


class Metrics(Config):
    """What an evaluation found; average precisions are 0…1 and averaged over classes."""

    images: int
    """Images evaluated."""
    map: float
    """Average precision, mean over IoU 0.50:0.95; 0 where the set has no objects at all."""
    map50: float
    """At IoU 0.5; 0 where the set has no objects at all."""
    map75: float
    """At IoU 0.75; 0 where the set has no objects at all."""
    map_small: float | None
    """Objects under 32² pixels of area; None where there are none."""
    map_medium: float | None
    """Objects from 32² to 96² pixels; None where there are none."""
    map_large: float | None
    """Objects over 96² pixels; None where there are none."""
    precision: float
    """Share of detections that are right, at `confidence` and IoU 0.5, pooled over classes."""
    recall: float
    """Share of objects that are found, at `confidence` and IoU 0.5, pooled over classes."""
    f1: float
    """Harmonic mean of precision and recall."""
    confidence: float
    """The score threshold where F1 is best; 0 where nothing right was detected."""
    per_class: dict[str, ClassMetrics]
    """By class name, in the order of the class list."""
    precision_recall: PrecisionRecall
    sources: dict[str, "Metrics"] = Field(default_factory=dict)
    """For a mixture the same for each dataset by itself: its images, its classes."""


def coco_metrics(
    truth: Sequence[GroundTruth],
    detections: Sequence[Detections],
    classes: Sequence[str],
    max_detections: int = 100,
) -> Metrics:
    """Metrics of the COCO protocol (Lin et al. 2014), equal to its reference implementation to the last bit.

    Args:
        truth: the images. Boxes marked `ignore` count as the protocol's crowds: they need not be found, and
            detections inside them are no mistakes. The area of an object is that of its box.
        detections: of the same images in the same order, xyxy in pixels of the image.
        classes: names by class number.
        max_detections: the best ones of each image and class that count (100 in the protocol).
    """
    boxes = [image.boxes for image in truth]
    precision = interpolated_precision(boxes, detections, len(classes), max_detections)
    point = best_f1(boxes, detections, max_detections)
    objects = object_counts(boxes, len(classes))
    return Metrics(
        images=len(truth),
        map=_mean(precision[..., ALL]) or 0.0,
        map50=_mean(precision[IOU_50, ..., ALL]) or 0.0,
        map75=_mean(precision[IOU_75, ..., ALL]) or 0.0,
        map_small=_mean(precision[..., SMALL]),
        map_medium=_mean(precision[..., MEDIUM]),
        map_large=_mean(precision[..., LARGE]),
        precision=point.precision,
        recall=point.recall,
        f1=point.f1,
        confidence=point.confidence,
        per_class={
            name: ClassMetrics(
                map=_mean(precision[:, :, number, ALL]),
                map50=_mean(precision[IOU_50, :, number, ALL]),
                objects=int(objects[number]),
            )
            for number, name in enumerate(classes)
        },
        precision_recall=_curves(precision[IOU_50, ..., ALL], classes),
    )


def _mean(precision: NDArray[np.float64]) -> float | None:
    """Mean over the classes that have objects; None if none has."""
    known = precision[precision > ABSENT]
    return float(known.mean()) if known.size else None


def _curves(precision: NDArray[np.float64], classes: Sequence[str]) -> PrecisionRecall:
    """Curves from precision, float64 [101 recalls, classes]."""
    known = np.all(precision > ABSENT, axis=0)
    mean = precision[:, known].mean(axis=1) if known.any() else np.zeros(len(precision))
    return PrecisionRecall(
        mean=tuple(mean.tolist()),
        per_class={name: tuple(precision[:, k].tolist()) for k, name in enumerate(classes) if known[k]},
    )
