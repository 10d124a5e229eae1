"""A network's accuracy on a converted split, computed by any number of workers with the same result."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from pydantic import Field

from yolo_dist.config import Config
from yolo_dist.darknet.network import Network
from yolo_dist.data.loader import evaluation_batches
from yolo_dist.data.mixture import Images, Mixture
from yolo_dist.errors import ConfigError, OutOfMemory
from yolo_dist.evaluate.by_source import source_metrics
from yolo_dist.evaluate.inference import Predict, Thresholds, find_objects, inference
from yolo_dist.evaluate.metrics import GroundTruth, Metrics, coco_metrics
from yolo_dist.evaluate.nms import Detections
from yolo_dist.shortage import is_lack_of_memory

KEPT_AN_IMAGE = 300
"""Kept by suppression over all classes; the protocol counts its own number of each class."""

Found = tuple[int, Detections]
"""The number of an image in its shard set, and what was found on it."""

Gather = Callable[[list[Any]], list[list[Any]]]
"""One worker's list to the lists of all workers, in the order of ranks."""

Tell = Callable[[str], None]
"""One line to the person who watches."""


class EvaluationConfig(Config):
    """How accuracy is measured."""

    confidence: float = Field(default=0.001, ge=0, lt=1)
    """Least score of a detection."""
    nms_iou: float = Field(default=0.6, ge=0, le=1)
    """Boxes of one class that overlap by more than this are one object."""
    max_detections: int | None = Field(default=None, ge=1)
    """Detections of each image and class that count; by default the dataset's number (100 by the COCO protocol)."""
    multi_label: bool = True
    """Whether one box may be a detection of several classes."""
    batch_size: int = Field(default=16, ge=1)
    """Images a batch on each worker; fewer where they do not fit into memory."""
    augment: bool | None = None
    """Whether each image is looked at in four views, mirrored and in other sizes; off by default."""


@dataclass(frozen=True)
class Evaluation:
    """Metrics of a split, and the detections behind them, one entry an image in the order of the shard set."""

    metrics: Metrics
    detections: tuple[Detections, ...]


def evaluate(
    network: Network | Predict,
    shards: Images,
    image_size: tuple[int, int],
    config: EvaluationConfig | None = None,
    *,
    rank: int = 0,
    world_size: int = 1,
    gather: Gather | None = None,
    device: torch.device | str = "cpu",
    autocast: torch.dtype | None = None,
    threads: int = 1,
    max_detections: int = 100,
    tell: Tell | None = None,
) -> Evaluation | None:
    """Evaluate a network by the COCO protocol.

    On an image whose source does not label a class, detections of that class are left out: they are neither right nor
    wrong, and a class is measured on the images of those sources that label it.

    The batches are fixed and dealt out to the workers, so that the result does not depend on their number. A worker
    whose memory does not hold one looks at it in parts: the same result but for rounding.

    Args:
        network: on `device`; its mode is restored. Or what computes boxes in its place, such as an exported file.
        shards: the split.
        image_size: (width, height) of the input in pixels.
        config: how.
        rank: of this worker.
        world_size: number of workers.
        gather: collects the detections of all workers; needed for more than one.
        device: where the network is.
        autocast: precision of the network, None for float32.
        threads: that decode images ahead of the network.
        max_detections: the dataset's number of detections an image and class, unless `config` has one.
        tell: hears of batches that do not fit into memory.

    Returns:
        The evaluation on rank 0, None on all others.

    Raises:
        ConfigError: an exported file shall look at images of several sizes.
        OutOfMemory: not even one image fits.
    """
    if world_size > 1 and gather is None:
        raise ValueError(f"{world_size} workers need a gather")
    config = config or EvaluationConfig()
    if config.augment and not isinstance(network, Network):
        raise ConfigError("evaluation.augment", ["an exported file takes one size of images; leave augment out"])
    limit = config.max_detections or max_detections
    own = predict(
        network,
        shards,
        image_size,
        config,
        rank=rank,
        world_size=world_size,
        device=device,
        autocast=autocast,
        threads=threads,
        kept=max(KEPT_AN_IMAGE, limit),
        tell=tell,
    )
    shares = gather(own) if gather else [own]
    if rank != 0:
        return None
    by_number = dict(found for share in shares for found in share)
    detections = tuple(by_number[number] for number in range(len(shards)))
    truth = ground_truth(shards)
    metrics = coco_metrics(truth, detections, shards.classes, limit)
    if isinstance(shards, Mixture):
        sources = source_metrics(shards, truth, detections, config.max_detections)
        metrics = metrics.model_copy(update={"sources": sources})
    return Evaluation(metrics, detections)


def predict(
    network: Network | Predict,
    shards: Images,
    image_size: tuple[int, int],
    config: EvaluationConfig,
    *,
    rank: int = 0,
    world_size: int = 1,
    device: torch.device | str = "cpu",
    autocast: torch.dtype | None = None,
    threads: int = 1,
    kept: int = KEPT_AN_IMAGE,
    tell: Tell | None = None,
) -> list[Found]:
    """One worker's share of an evaluation: detections in pixels of the original images; see `evaluate`."""
    thresholds = Thresholds(config.confidence, config.nms_iou, kept, config.multi_label)
    found: list[Found] = []
    fitting = config.batch_size
    with inference(network):
        for batch in evaluation_batches(shards, image_size, config.batch_size, rank, world_size, threads):
            start = 0
            while start < len(batch):
                part = slice(start, min(start + fitting, len(batch)))
                known = None if batch.known is None else batch.known[part].to(device)
                boxes, augmented = batch.letterboxes[part], bool(config.augment)
                try:
                    images = batch.images[part].to(device)
                    objects = find_objects(network, images, boxes, thresholds, autocast, known, augmented)
                except (RuntimeError, MemoryError) as error:
                    if not is_lack_of_memory(error):
                        raise
                    fitting = _fewer(part.stop - start, rank, image_size, tell)
                else:
                    found += zip(batch.samples[part].tolist(), objects, strict=True)
                    start = part.stop
    return found


def _fewer(images: int, rank: int, image_size: tuple[int, int], tell: Tell | None) -> int:
    """Half as many images at a time."""
    if images == 1:
        width, height = image_size
        raise OutOfMemory(
            f"worker {rank} ran out of memory with one image of {width}×{height} to evaluate; take a smaller "
            "image_size, or run fewer workers on a machine"
        )
    if tell is not None:
        tell(f"worker {rank} has no memory to evaluate {images} images at a time, going on with {images // 2}")
    return images // 2


def ground_truth(shards: Images) -> list[GroundTruth]:
    """What there is to find in each image of a shard set, in its order."""
    return [GroundTruth(sample.image_id, sample.width, sample.height, sample.boxes) for sample in shards]
