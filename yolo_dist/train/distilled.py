"""Distillation beside the loop: a frozen teacher, seen once a batch, and what the loss gains from it."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from yolo_dist.bundle import Bundle
from yolo_dist.compress.distillation import Comparison, DistillationConfig, Outputs
from yolo_dist.compress.distillation.attention import AttentionMaps
from yolo_dist.compress.distillation.pairing import Origins, paired_layers, require_equal_heads, require_equal_maps
from yolo_dist.compress.distillation.strategy import Matched
from yolo_dist.darknet.network import Network
from yolo_dist.train.precision import Precision


@dataclass(frozen=True)
class Teacher:
    """A teacher for one student.

    Attributes:
        network: it stays as it is.
        config: what it teaches.
        layers: layer of the student → layer of the teacher, whose features are compared.
    """

    network: Network
    config: DistillationConfig
    layers: dict[int, int]


def teacher_of(student: Bundle, teacher: Bundle, config: DistillationConfig) -> Teacher:
    """A bundle as the teacher of another one.

    Raises:
        ConfigError: their heads differ, or layers that are to be compared do; names both.
    """
    require_equal_heads(student.network, teacher.network, config.teacher)
    ours, theirs = student.network.cfg, teacher.network.cfg
    layers = config.layers or {}
    if config.chosen.compares_features and config.layers is None:
        layers = paired_layers(ours, theirs, _origins(student), _origins(teacher))
    elif config.layers is not None:
        require_equal_maps(ours, theirs, layers)
    return Teacher(teacher.network, config, layers)


class Distillation:
    """Adds what a teacher has to say to the loss of every batch.

    Args:
        student: in training, on its device.
        teacher: is moved there, and never trained.
        precision: in which both compute.

    Attributes:
        terms: names of what it adds, in the order of `Distillation.__call__`.
    """

    def __init__(self, student: Network, teacher: Teacher, precision: Precision) -> None:
        self.config = teacher.config
        self.terms = tuple(f"teacher {name}" for name in teacher.config.term_weights)
        self.student = student
        self.device = next(student.parameters()).device
        moved: Network = teacher.network.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.teacher = moved.eval().requires_grad_(False)
        self.precision = precision
        layers = teacher.layers.items()
        self._ours = AttentionMaps(student, [layer for layer, _ in layers])
        self._theirs = AttentionMaps(self.teacher, [layer for _, layer in layers])

    def __call__(
        self, pixels: Tensor, raws: Sequence[Tensor], matches: Sequence[Matched], global_images: int
    ) -> Tensor:
        """Weighted terms of this worker's share of a global batch, float [terms]; call it right after the student.

        Args:
            pixels: what the student has just seen, float [B, C, H, W] in 0..1.
            raws: what it gave, one a head, [B, A, h, w, 5 + classes].
            matches: one a head.
            global_images: images in the global batch.
        """
        with torch.no_grad(), self.precision.forward():
            answers = self.teacher(pixels)
        batch = Comparison(
            student=Outputs(self.student.heads, [raw.float() for raw in raws], self._ours.take()),
            teacher=Outputs(self.teacher.heads, [raw.float() for raw in answers], self._theirs.take()),
            matches=matches,
            images=global_images,
            temperature=self.config.temperature,
        )
        terms = self.config.chosen.terms(batch)
        return torch.stack([terms[name] * weight for name, weight in self.config.term_weights.items()])


def _origins(bundle: Bundle) -> Origins:
    return bundle.lineage or range(len(bundle.network.layers))
