"""The detection loss: boxes by GIoU or CIoU, objectness and classes by binary cross-entropy.

Rezatofighi et al. 2019, "Generalized Intersection over Union"; Zheng et al. 2020, "Distance-IoU Loss" (CIoU).
Every term is normalised by what the whole global batch holds, so the loss and its gradients do not depend on how
that batch is divided among workers.

Where an image's source does not label all classes, what is missing there is no evidence. Such an image gives no class
term for a class that its source does not know, and no objectness term for a cell without an object in which the
network, as it is now, sees a class that the source does not know as the likeliest: there may be such an object. The
divisors stay, so what is left out weighs nothing and what remains weighs what it always does.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from annotated_types import Ge, Lt
from torch import Tensor

from yolo_dist.config import Config
from yolo_dist.darknet.heads import Head
from yolo_dist.darknet.network import Network
from yolo_dist.train.targets import Matches

Gain = Annotated[float, Ge(0)]
TERMS = ("box", "objectness", "class")


class LossConfig(Config):
    """Weights of the three terms; the defaults are the original's."""

    box_gain: Gain = 3.54
    """Weight of the mean 1 − IoU over matches."""
    objectness_gain: Gain = 64.3
    """Weight of the mean cross-entropy over all cells of a head."""
    class_gain: Gain = 37.4
    """Weight at 80 classes of the mean cross-entropy over matches × classes; scaled by classes / 80."""
    label_smoothing: Annotated[float, Ge(0), Lt(1)] | None = None
    """ε: a matched box's class targets are 1 − ε/2 and ε/2 in place of 1 and 0."""
    iou: Literal["auto", "giou", "ciou"] = "auto"
    """Box measure; `auto` follows the cfg's own `iou_loss` (ciou in YOLOv4), else giou."""


@dataclass(frozen=True)
class Loss:
    """Total to minimise, and its terms (box, objectness, class, what joined them) detached, float [3 + n]."""

    total: Tensor
    terms: Tensor

    def joined_by(self, terms: Tensor) -> "Loss":
        """The loss with more terms, float [n]."""
        return Loss(self.total + terms.sum(), torch.cat((self.terms, terms.detach())))


class DetectionLoss:
    """Loss of a network's raw head outputs.

    Args:
        network: gives heads and the cfg's box measure.
        config: weights.
    """

    def __init__(self, network: Network, config: LossConfig) -> None:
        self.heads: Sequence[Head] = network.heads
        self.config = config
        self.iou = ciou if box_measure(network, config) == "ciou" else giou
        classes = self.heads[0].classes
        self.class_gain = config.class_gain * classes / 80 if classes > 1 else 0.0

    def __call__(
        self,
        outputs: Sequence[Tensor],
        matches: Sequence[Matches],
        global_images: int,
        iou_share: float,
        known: Tensor | None = None,
        counts: Tensor | None = None,
    ) -> Loss:
        """Loss of this worker's share of a global batch; summed over workers it is the global batch's mean loss.

        Args:
            outputs: raw, one a head, [B, A, h, w, 5 + classes].
            matches: one a head.
            global_images: images in the global batch.
            iou_share: how much of an objectness target is the predicted box's IoU, 0 to 1; the rest is 1.
            known: which classes each image's source labels, bool [B, classes]; None for all of them.
            counts: matches of each head in the global batch, float [heads]; `matches` are all of them by default.
        """
        counts = self.counts([matches], outputs[0].device) if counts is None else counts
        terms = torch.stack(
            [
                self._head(head, output.float(), match, count, global_images, iou_share, known)
                for head, output, match, count in zip(self.heads, outputs, matches, counts.clamp(min=1), strict=True)
            ]
        ).sum(dim=0)
        return Loss(terms.sum(), terms.detach())

    def counts(self, parts: Sequence[Sequence[Matches]], device: torch.device) -> Tensor:
        """Matches that each head has in parts of a batch, each with one a head; float [heads] on the device."""
        own = torch.tensor([sum(map(len, heads)) for heads in zip(*parts, strict=True)], dtype=torch.float32)
        return own.to(device, non_blocking=True)

    def _head(
        self,
        head: Head,
        output: Tensor,
        match: Matches,
        count: Tensor,
        global_images: int,
        iou_share: float,
        known: Tensor | None,
    ) -> Tensor:
        target = torch.zeros_like(output[..., 4])
        evidence = None if known is None else _sees_known_class(output, known)
        box = cls = output.sum() * 0
        if len(match):
            column, row = match.cell.unbind(1)
            place = (match.image, match.anchor, row, column)
            rows = output[place]
            anchors = head.anchors.to(rows, non_blocking=True)[match.anchor]
            overlap = self.iou(head.decode_boxes(rows[:, :4], anchors, match.cell), match.boxes)
            box = (1 - overlap).sum() / count
            certainty = (1 - iou_share) + iou_share * overlap.detach().clamp(min=0)
            target = _largest_at(target, place, certainty)
            if evidence is not None:
                evidence[place] = 1
            if head.classes > 1:
                wanted = smoothed(F.one_hot(match.labels, head.classes).to(rows.dtype), self.config.label_smoothing)
                judged = None if known is None else known[match.image].to(rows.dtype)
                cls = _cross_entropy(rows[:, 5:], wanted, judged) / (count * head.classes)
        cells = global_images * output[0, ..., 4].numel()
        objectness = _cross_entropy(output[..., 4], target, evidence) / cells
        return torch.stack(
            [box * self.config.box_gain, objectness * self.config.objectness_gain, cls * self.class_gain]
        )


def smoothed(targets: Tensor, epsilon: float | None) -> Tensor:
    """Targets 0 and 1 as ε/2 and 1 − ε/2, float of any shape.

    Szegedy et al. 2016, "Rethinking the Inception Architecture", §7: (1 − ε)·y + ε·u with u even over the outcomes, of
    which a sigmoid has two. Objectness is not smoothed.
    """
    return targets if not epsilon else targets * (1 - epsilon) + epsilon / 2


def _cross_entropy(logits: Tensor, target: Tensor, weight: Tensor | None) -> Tensor:
    return F.binary_cross_entropy_with_logits(logits, target, weight, reduction="sum")


def _sees_known_class(output: Tensor, known: Tensor) -> Tensor:
    """1 where the likeliest class of a cell is known to the image's source, else 0; float [B, A, h, w]."""
    likeliest = output[..., 5:].argmax(dim=-1)
    seen = known.gather(1, likeliest.flatten(1)).view_as(likeliest)
    return seen.to(output.dtype)


def box_measure(network: Network, config: LossConfig) -> str:
    """`giou` or `ciou`."""
    if config.iou != "auto":
        return config.iou
    heads = [network.cfg.layers[head.layer] for head in network.heads]
    return "ciou" if all(head.training_option("iou_loss") == "ciou" for head in heads) else "giou"


def giou(boxes: Tensor, others: Tensor) -> Tensor:
    """Generalised IoU of box pairs, xyxy float [n, 4] → [n]."""
    overlap, union = _overlap_and_union(boxes, others)
    hull = _hull(boxes, others).prod(dim=1)
    return overlap / union - (hull - union) / hull.clamp(min=1e-9)


def ciou(boxes: Tensor, others: Tensor) -> Tensor:
    """Complete IoU of box pairs, xyxy float [n, 4] → [n]."""
    overlap, union = _overlap_and_union(boxes, others)
    iou = overlap / union
    diagonal = _hull(boxes, others).square().sum(dim=1).clamp(min=1e-9)
    distance = ((boxes[:, :2] + boxes[:, 2:] - others[:, :2] - others[:, 2:]) / 2).square().sum(dim=1)
    angle = _aspect(others) - _aspect(boxes)
    aspect = 4 / math.pi**2 * angle.square()
    with torch.no_grad():
        weight = aspect / (1 - iou + aspect).clamp(min=1e-9)
    return iou - distance / diagonal - weight * aspect


def _overlap_and_union(boxes: Tensor, others: Tensor) -> tuple[Tensor, Tensor]:
    low = torch.maximum(boxes[:, :2], others[:, :2])
    high = torch.minimum(boxes[:, 2:], others[:, 2:])
    overlap = (high - low).clamp(min=0).prod(dim=1)
    areas = [(pair[:, 2:] - pair[:, :2]).prod(dim=1) for pair in (boxes, others)]
    return overlap, (areas[0] + areas[1] - overlap).clamp(min=1e-9)


def _hull(boxes: Tensor, others: Tensor) -> Tensor:
    return torch.maximum(boxes[:, 2:], others[:, 2:]) - torch.minimum(boxes[:, :2], others[:, :2])


def _aspect(boxes: Tensor) -> Tensor:
    width, height = (boxes[:, 2:] - boxes[:, :2]).unbind(1)
    return torch.atan(width / height.clamp(min=1e-9))


def _largest_at(target: Tensor, place: tuple[Tensor, ...], values: Tensor) -> Tensor:
    """`target` with `values` written at `place`; where several meet the largest stays, on every device alike."""
    flat = place[0]
    for size, index in zip(target.shape[1:], place[1:], strict=True):
        flat = flat * size + index
    return target.flatten().scatter_reduce(0, flat, values, "amax").view_as(target)
