"""How well a network does on each dataset of a mixture by itself."""

from collections.abc import Sequence

import numpy as np

from yolo_dist.data.mixture import Mixture
from yolo_dist.evaluate.metrics import GroundTruth, Metrics, coco_metrics
from yolo_dist.evaluate.nms import Detections


def source_metrics(
    mixture: Mixture, truth: Sequence[GroundTruth], detections: Sequence[Detections], max_detections: int | None = None
) -> dict[str, Metrics]:
    """Metrics of each source's own images and classes, by its name.

    Args:
        mixture: which images and classes are whose.
        truth: its images, in order.
        detections: of the same images in the same order, of classes that their source labels.
        max_detections: the best ones of each image and class that count; by default each source's own number.
    """
    found: dict[str, Metrics] = {}
    for number, source in enumerate(mixture.plan.sources):
        own = slice(int(mixture.bounds[number]), int(mixture.bounds[number + 1]))
        limit = max_detections or source.max_detections
        metrics = coco_metrics(truth[own], detections[own], mixture.classes, limit)
        labelled = {mixture.classes[label] for label in np.flatnonzero(mixture.known[number])}
        per_class = {name: one for name, one in metrics.per_class.items() if name in labelled}
        found[source.name] = metrics.model_copy(update={"per_class": per_class})
    return found
