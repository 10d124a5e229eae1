"""Objectness and classes of a student against those of its teacher: shared by the strategies from the second on."""

from torch import Tensor

from yolo_dist.compress.distillation.divergence import softened_divergence
from yolo_dist.compress.distillation.strategy import Comparison


def scores_term(batch: Comparison) -> Tensor:
    """Divergence of the softened objectness and class scores of all cells, divided by the global batch's images."""
    divergences = [
        softened_divergence(student[..., 4:].flatten(0, 3), teacher[..., 4:].flatten(0, 3), batch.temperature)
        for student, teacher in zip(batch.student.raws, batch.teacher.raws, strict=True)
    ]
    return sum(divergences[1:], start=divergences[0]) / batch.images
