"""From a batch of letterboxed images to the objects on the original ones."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from yolo_dist.darknet.heads import decode_heads
from yolo_dist.darknet.network import Network
from yolo_dist.data.image import Letterbox
from yolo_dist.errors import NonFiniteOutput
from yolo_dist.evaluate.nms import Detections, non_maximum_suppression
from yolo_dist.evaluate.views import boxes_of_views

Predict = Callable[[Tensor], Tensor]
"""Uint8 RGB images [B, 3, H, W] to boxes, float32 [B, N, 5 + classes], as `decode_heads` gives them."""


@dataclass(frozen=True)
class Thresholds:
    """What counts as a detection.

    Attributes:
        confidence: least score, objectness × class probability.
        nms_iou: boxes of one class that overlap by more are one object.
        max_detections: kept of each image.
        multi_label: whether a box may be of several classes at once.
    """

    confidence: float = 0.25
    nms_iou: float = 0.45
    max_detections: int = 300
    multi_label: bool = False


@contextmanager
def inference(network: Network | Predict) -> Iterator[None]:
    """Evaluation mode without gradients; every module gets its own mode back afterwards."""
    modules = list(network.modules()) if isinstance(network, Network) else []
    training = [module for module in modules if module.training]
    for module in training:
        module.training = False
    try:
        with torch.inference_mode():
            yield
    finally:
        for module in training:
            module.training = True


def find_objects(
    network: Network | Predict,
    images: Tensor,
    letterboxes: Sequence[Letterbox],
    thresholds: Thresholds,
    autocast: torch.dtype | None = None,
    classes: Tensor | None = None,
    augmented: bool = False,
) -> list[Detections]:
    """The objects on a batch of images; call it inside `inference(network)`.

    Args:
        network: on the device of the images; or what computes boxes in its place.
        images: uint8 RGB [B, 3, H, W].
        letterboxes: how each image came into the input.
        thresholds: what to keep.
        autocast: precision of the network, None for float32; boxes are always decoded in float32.
        classes: which ones to find on each image, bool [B, classes]; None for all.
        augmented: look at each image in several views; what computes boxes must take images of other sizes.

    Returns:
        For each image, boxes in pixels of the original, cut at its border.

    Raises:
        NonFiniteOutput: the network gives NaN or infinity.
    """
    boxes_of = partial(_boxes, network, autocast=autocast) if isinstance(network, Network) else network
    decoded = boxes_of_views(boxes_of, images) if augmented else boxes_of(images)
    if classes is not None:
        decoded[..., 5:] *= classes[:, None]
    found = non_maximum_suppression(
        decoded,
        thresholds.confidence,
        thresholds.nms_iou,
        thresholds.max_detections,
        thresholds.multi_label,
    )
    return [_on_original(one, letterbox) for one, letterbox in zip(found, letterboxes, strict=True)]


def _boxes(network: Network, images: Tensor, autocast: torch.dtype | None) -> Tensor:
    pixels = images.float().div_(255)
    with torch.autocast(images.device.type, autocast) if autocast else nullcontext():
        raws = network(pixels)
    require_finite(raws)
    return decode_heads(network.heads, raws)


def require_finite(outputs: Sequence[Tensor]) -> None:
    """Refuse the outputs of a network whose weights are useless, though each may be a number.

    Raises:
        NonFiniteOutput: there is NaN or infinity among them.
    """
    if not all(bool(torch.isfinite(output).all()) for output in outputs):
        raise NonFiniteOutput(
            "the network's output on an image is not finite; its weights are useless: train it again with a lower "
            "optimizer.learning_rate, or give other weights"
        )


def _on_original(found: Detections, letterbox: Letterbox) -> Detections:
    """Detections in pixels of the original; those in the padding around it are dropped."""
    moved = Detections(letterbox.backward(found.xyxy), found.scores, found.labels)
    inside = (moved.xyxy[:, 0] < moved.xyxy[:, 2]) & (moved.xyxy[:, 1] < moved.xyxy[:, 3])
    return moved.select(inside)
