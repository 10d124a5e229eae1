"""Anchors for a dataset: k-means on box shapes, then a genetic search.

Distance 1 − IoU of boxes on a common corner (Redmon and Farhadi 2017, "YOLO9000", §2); refinement by mutation of the
mean best IoU, as the YOLOv3 descendants do it.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from yolo_dist.data.image import plan_letterbox
from yolo_dist.data.mixture import Images, Mixture
from yolo_dist.data.shards import ShardSet
from yolo_dist.errors import DataError

RECALL_IOU = 0.25
"""A box whose best anchor reaches this IoU counts as possible to recall."""

_STARTS = 4
_ROUNDS = 100
_GENERATIONS = 1000
_LARGEST_SAMPLE = 20_000
_SMALLEST_SIDE = 1.0


@dataclass(frozen=True)
class Anchors:
    """Anchors and how well they fit.

    Attributes:
        sizes: (width, height) in input pixels, float32 [count, 2], by area.
        best_possible_recall: share of boxes whose best anchor has an IoU above `RECALL_IOU`.
        mean_iou: of each box with its best anchor.
    """

    sizes: NDArray[np.float32]
    best_possible_recall: float
    mean_iou: float

    def cfg_line(self) -> str:
        """The line of a Darknet cfg, in whole pixels."""
        pairs = (f"{round(float(width))},{round(float(height))}" for width, height in self.sizes)
        return f"anchors = {', '.join(pairs)}"

    def card_line(self) -> str:
        """The line below `anchors:` in a card, in tenths of pixels."""
        return f"{len(self.sizes)}: {self.card_text()}"

    def card_text(self) -> str:
        """The anchors as a card writes them, in tenths of pixels."""
        return " ".join(f"{_tenths(width)},{_tenths(height)}" for width, height in self.sizes)

    def nearest(self, sizes: NDArray[np.float32]) -> NDArray[np.int64]:
        """Number of the anchor that fits each size best, int64 [n]."""
        return np.asarray(_iou(np.maximum(sizes, np.float32(_SMALLEST_SIDE)), self.sizes).argmax(axis=1))


def letterboxed_sizes(shards: ShardSet, image_size: tuple[int, int]) -> NDArray[np.float32]:
    """(width, height) of every box as the network sees it at `image_size`, ignored ones left out, float32 [n, 2]."""
    scales = [plan_letterbox(sample.width, sample.height, image_size).scale for sample in shards]
    numbers, sizes = shards.box_sizes()
    return np.asarray(sizes * np.array(scales, np.float32)[numbers, None], np.float32)


def training_sizes(images: Images, image_size: tuple[int, int]) -> NDArray[np.float32]:
    """(width, height) of boxes as the network sees them, as often as training shows them to it, float32 [n, 2].

    Each source of a mixture gives as many as its weight and its boxes an image make it, evenly from all it has.
    """
    if not isinstance(images, Mixture):
        return letterboxed_sizes(images, image_size)
    sizes = [letterboxed_sizes(source, image_size) for source in images.sources]
    boxes = np.array([len(own) for own in sizes]) * images.weights / np.diff(images.bounds)
    counts = (_LARGEST_SAMPLE * boxes / max(boxes.sum(), 1e-9)).round().astype(int)
    places = [np.arange(count) * len(own) // max(count, 1) for own, count in zip(sizes, counts, strict=True)]
    return np.concatenate([own[index] for own, index in zip(sizes, places, strict=True)])


def kmeans_anchors(sizes: NDArray[np.float32], count: int, seed: int = 0) -> Anchors:
    """`count` anchors for boxes of these sizes; the same for the same seed.

    Where boxes are fewer than anchors, or all alike, the anchors left over are scaled copies of those found.

    Args:
        sizes: (width, height) in input pixels, float32 [n, 2].
        count: how many.
        seed: of the search.

    Raises:
        DataError: there is no box.
    """
    if not len(sizes):
        raise DataError("anchors need at least one box that is not ignored; the split has none")
    generator = np.random.default_rng(seed)
    boxes = np.maximum(sizes.astype(np.float64), _SMALLEST_SIDE)
    if len(boxes) > _LARGEST_SAMPLE:
        boxes = boxes[generator.choice(len(boxes), _LARGEST_SAMPLE, replace=False)]
    distinct = np.unique(boxes, axis=0)
    if len(distinct) <= count:
        anchors = _spread(distinct, count)
    else:
        starts = [_cluster(boxes, count, generator) for _ in range(_STARTS)]
        anchors = _refine(max(starts, key=lambda start: _fitness(boxes, start)), boxes, generator)
    ordered = anchors[np.argsort(anchors.prod(axis=1), kind="stable")].astype(np.float32)
    best = _iou(np.maximum(sizes, np.float32(_SMALLEST_SIDE)), ordered).max(axis=1)
    return Anchors(ordered, float((best > RECALL_IOU).mean()), float(best.mean()))


def _tenths(side: float) -> str:
    return f"{round(float(side), 1):g}"


def _iou(boxes: NDArray[np.floating], anchors: NDArray[np.floating]) -> NDArray[np.floating]:
    """IoU of boxes [n, 2] and anchors [k, 2] laid on a common corner, [n, k]."""
    width, height = boxes[:, :1], boxes[:, 1:]
    common = np.minimum(width, anchors[:, 0]) * np.minimum(height, anchors[:, 1])
    return np.asarray(common / (width * height + anchors[:, 0] * anchors[:, 1] - common))


def _spread(distinct: NDArray[np.float64], count: int) -> NDArray[np.float64]:
    """The boxes themselves, then copies of them 1.5, 1.5², … times as large."""
    copies = -(-count // len(distinct))
    return np.concatenate([distinct * 1.5**power for power in range(copies)])[:count]


def _fitness(boxes: NDArray[np.float64], anchors: NDArray[np.float64]) -> float:
    return float(_iou(boxes, anchors).max(axis=1).mean())


def _cluster(boxes: NDArray[np.float64], count: int, generator: np.random.Generator) -> NDArray[np.float64]:
    """Lloyd's rounds with medians as centres; a centre that loses all its boxes moves to the box worst served.

    Starts as k-means++ does (Arthur and Vassilvitskii 2007): far boxes are likelier centres.
    """
    centres = boxes[generator.choice(len(boxes), 1)]
    while len(centres) < count:
        distance = (1 - _iou(boxes, centres).max(axis=1)).clip(0) ** 2
        chosen = generator.choice(len(boxes), p=distance / distance.sum())
        centres = np.concatenate([centres, boxes[chosen : chosen + 1]])
    assigned = np.full(len(boxes), -1)
    for _ in range(_ROUNDS):
        overlap = _iou(boxes, centres)
        nearest = overlap.argmax(axis=1)
        if (nearest == assigned).all():
            break
        assigned, worst = nearest, overlap.max(axis=1).argmin()
        members = (boxes[assigned == number] for number in range(count))
        centres = np.array([np.median(own, axis=0) if len(own) else boxes[worst] for own in members])
    return centres


def _refine(
    anchors: NDArray[np.float64], boxes: NDArray[np.float64], generator: np.random.Generator
) -> NDArray[np.float64]:
    """Mutate the anchors and keep what fits better."""
    sample = boxes[generator.choice(len(boxes), min(len(boxes), 2000), replace=False)]
    best, fitness = anchors, _fitness(sample, anchors)
    for _ in range(_GENERATIONS):
        factors = np.where(generator.random(best.shape) < 0.5, generator.normal(1, 0.1, best.shape), 1)
        mutant = np.maximum(best * np.clip(factors, 0.3, 3), _SMALLEST_SIDE)
        mutant_fitness = _fitness(sample, mutant)
        if mutant_fitness > fitness:
            best, fitness = mutant, mutant_fitness
    return best
