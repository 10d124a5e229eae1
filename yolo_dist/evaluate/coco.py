"""Average precision by the COCO protocol on boxes (Lin et al. 2014, "Microsoft COCO")."""

import logging
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from faster_coco_eval.core.coco import COCO
from faster_coco_eval.core.faster_eval_api import COCOeval_faster
from numpy.typing import NDArray

from yolo_dist.data.annotations import ANY_CLASS, Boxes
from yolo_dist.evaluate.nms import Detections

IOU_50, IOU_75 = 0, 5
ALL, SMALL, MEDIUM, LARGE = range(4)
ABSENT = -1.0
PRECISION_OF_ONE = float(1 / (1 + np.spacing(1)))

Annotation = dict[str, Any]

logging.getLogger("faster_coco_eval").setLevel(logging.WARNING)


def interpolated_precision(
    truth: Sequence[Boxes], detections: Sequence[Detections], classes: int, max_detections: int = 100
) -> NDArray[np.float64]:
    """Precision at 101 recalls, equal to the protocol's reference implementation to the last bit.

    Args:
        truth: boxes of each image. Those marked `ignore` are the protocol's crowds: they need not be found, and
            detections inside them are no mistakes, those of any class where the label is `ANY_CLASS`. The area of an
            object is that of its box.
        detections: of the same images in the same order.
        classes: how many there are.
        max_detections: the best ones of each image and class that count.

    Returns:
        float64 [IoUs 0.50:0.95, recalls 0:1, classes, areas all / small / medium / large]; −1 where a class has no
        object of that area.
    """
    frame = {"images": [{"id": n} for n in range(len(truth))], "categories": [{"id": n} for n in range(classes)]}
    evaluation = COCOeval_faster(
        COCO(frame | {"annotations": _numbered(_objects(truth, classes))}),
        COCO(frame | {"annotations": _numbered(_found(detections))}),
        "bbox",
    )
    parameters = evaluation.params
    parameters.maxDets = [max_detections]
    recalls = parameters.recThrs
    counts = np.stack([object_counts(truth, classes, tuple(area)) for area in parameters.areaRng], axis=1)
    second, index = np.unique(1.5 / np.maximum(counts, 1), return_inverse=True)
    parameters.recThrs = np.concatenate([recalls, second])
    evaluation.evaluate()
    evaluation.accumulate()
    precision = np.asarray(evaluation.eval["precision"])[..., 0]
    curves, beyond = np.split(precision, [len(recalls)], axis=1)
    at_second = np.take_along_axis(beyond, index.reshape(1, 1, classes, -1), axis=1)
    return _as_reference(curves, at_second)


def xywh(xyxy: NDArray[np.float32]) -> NDArray[np.float64]:
    """Left, top, width, height in pixels, float64 [n, 4]: the form in which the protocol compares boxes."""
    boxes = xyxy.astype(np.float64)
    boxes[:, 2:] -= boxes[:, :2]
    return boxes


def object_counts(
    truth: Sequence[Boxes], classes: int, area: tuple[float, float] = (0.0, float("inf"))
) -> NDArray[np.int64]:
    """Objects to find of each class, int64 [classes]: not ignored, and of an area in pixels within the bounds."""
    labels = [np.zeros(0, np.int32)]
    for boxes in truth:
        sizes = xywh(boxes.xyxy)[:, 2:].prod(axis=1)
        labels.append(boxes.labels[~boxes.ignore & (area[0] <= sizes) & (sizes <= area[1])])
    return np.bincount(np.concatenate(labels), minlength=classes)


def _as_reference(curves: NDArray[np.float64], at_second: NDArray[np.float64]) -> NDArray[np.float64]:
    """Undo the one difference between the C++ implementation and the reference.

    The reference divides by detections + 2⁻⁵², which changes the quotient for a single detection only. A curve shows
    that quotient if its first detection is right and its second is not: if precision is 1 at the start, and below 1
    where the second object is found.
    """
    return np.where((curves == 1.0) & (at_second < 1.0), PRECISION_OF_ONE, curves)


def _objects(truth: Sequence[Boxes], classes: int) -> Iterator[Annotation]:
    for image, boxes in enumerate(truth):
        for box, label, ignore in zip(xywh(boxes.xyxy).tolist(), boxes.labels.tolist(), boxes.ignore, strict=True):
            for number in range(classes) if label == ANY_CLASS else (label,):
                yield _annotation(image, number, box) | {"iscrowd": int(ignore)}


def _found(detections: Sequence[Detections]) -> Iterator[Annotation]:
    for image, found in enumerate(detections):
        rows = zip(xywh(found.xyxy).tolist(), found.labels.tolist(), found.scores.tolist(), strict=True)
        for box, label, score in rows:
            yield _annotation(image, label, box) | {"score": score}


def _annotation(image: int, label: int, box: list[float]) -> Annotation:
    return {"image_id": image, "category_id": label, "bbox": box, "area": box[2] * box[3], "iscrowd": 0}


def _numbered(annotations: Iterator[Annotation]) -> list[Annotation]:
    """With numbers from 1, because 0 means "no match" in implementations of the protocol."""
    return [annotation | {"id": number} for number, annotation in enumerate(annotations, start=1)]
