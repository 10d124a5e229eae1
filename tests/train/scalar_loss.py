"""The loss once more, one number at a time: slow, plain, and without a tensor operation."""

import math
from collections.abc import Callable

from torch import Tensor

from yolo_dist.darknet.network import Network
from yolo_dist.train.loss import LossConfig


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def cross_entropy(x: float, target: float) -> float:
    return -target * math.log(sigmoid(x)) - (1 - target) * math.log(1 - sigmoid(x))


def scalar_giou(a: list[float], b: list[float]) -> float:
    shared = max(0.0, min(a[2], b[2]) - max(a[0], b[0])) * max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
    union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - shared
    hull = (max(a[2], b[2]) - min(a[0], b[0])) * (max(a[3], b[3]) - min(a[1], b[1]))
    return shared / union - (hull - union) / hull


def scalar_ciou(a: list[float], b: list[float], weight: float | None = None) -> float:
    """CIoU; `weight` fixes the factor of the aspect term, which the paper keeps out of the gradient."""
    shared = max(0.0, min(a[2], b[2]) - max(a[0], b[0])) * max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
    iou = shared / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - shared)
    diagonal = (max(a[2], b[2]) - min(a[0], b[0])) ** 2 + (max(a[3], b[3]) - min(a[1], b[1])) ** 2
    distance = ((a[0] + a[2] - b[0] - b[2]) ** 2 + (a[1] + a[3] - b[1] - b[3]) ** 2) / 4
    angles = [math.atan((box[2] - box[0]) / (box[3] - box[1])) for box in (a, b)]
    aspect = 4 / math.pi**2 * (angles[1] - angles[0]) ** 2
    if weight is None:
        weight = aspect / (1 - iou + aspect) if aspect else 0.0
    return iou - distance / diagonal - weight * aspect


def likeliest(logits: list[float]) -> int:
    return max(range(len(logits)), key=lambda c: logits[c])


def by_loops(
    network: Network,
    raws: list[Tensor],
    truth: tuple[Tensor, Tensor, Tensor],
    config: LossConfig,
    iou_share: float,
    measure: Callable[[list[float], list[float]], float] = scalar_giou,
    known: list[set[int]] | None = None,
) -> tuple[float, float, float]:
    """The three terms, one number at a time; `known` are the classes that each image's source labels."""
    epsilon = config.label_smoothing or 0.0
    box_term = objectness_term = class_term = 0.0
    for head, raw in zip(network.heads, raws, strict=True):
        images, anchors, rows, columns = raw.shape[:4]
        targets: dict[tuple[int, int, int, int], float] = {}
        boxes, classes, count = 0.0, 0.0, 0
        for box, label, image in zip(truth[0].tolist(), truth[1].tolist(), truth[2].tolist(), strict=True):
            size = (box[2] - box[0], box[3] - box[1])
            for anchor, (wide, high) in enumerate(head.anchors.tolist()):
                shared = min(size[0], wide) * min(size[1], high)
                if shared / (size[0] * size[1] + wide * high - shared) <= 0.2:
                    continue
                column = min(max(int((box[0] + box[2]) / 2 // head.stride), 0), columns - 1)
                row = min(max(int((box[1] + box[3]) / 2 // head.stride), 0), rows - 1)
                values = raw[image, anchor, row, column].tolist()
                s = head.scale_x_y
                x = (sigmoid(values[0]) * s - (s - 1) / 2 + column) * head.stride
                y = (sigmoid(values[1]) * s - (s - 1) / 2 + row) * head.stride
                w, h = math.exp(values[2]) * wide / 2, math.exp(values[3]) * high / 2
                overlap = measure([x - w, y - h, x + w, y + h], box)
                boxes += 1 - overlap
                classes += sum(
                    cross_entropy(logit, 1 - epsilon / 2 if c == label else epsilon / 2)
                    for c, logit in enumerate(values[5:])
                    if known is None or c in known[image]
                )
                place = (image, anchor, row, column)
                certainty = (1 - iou_share) + iou_share * max(overlap, 0)
                targets[place] = max(certainty, targets.get(place, 0.0))
                count += 1
        box_term += config.box_gain * boxes / max(count, 1)
        if head.classes > 1:
            gain = config.class_gain * head.classes / 80
            class_term += gain * classes / (max(count, 1) * head.classes)
        objectness_term += (
            config.objectness_gain
            * sum(
                cross_entropy(raw[b, a, r, c, 4].item(), targets.get((b, a, r, c), 0.0))
                for b in range(images)
                for a in range(anchors)
                for r in range(rows)
                for c in range(columns)
                if known is None or (b, a, r, c) in targets or likeliest(raw[b, a, r, c, 5:].tolist()) in known[b]
            )
            / (images * anchors * rows * columns)
        )
    return box_term, objectness_term, class_term
