"""Distillation: a student's training loss with terms that compare it with a teacher.

A new strategy is one file with a function registered by `@strategy(number, weights=…)`; import it here.
"""

from yolo_dist.compress.distillation import (
    boxes_by_teacher,
    boxes_by_truth,
    features,
    features_at_objects,
    whole_rows,
)
from yolo_dist.compress.distillation.config import DistillationConfig
from yolo_dist.compress.distillation.strategy import STRATEGIES, Comparison, Outputs

__all__ = [
    "STRATEGIES",
    "Comparison",
    "DistillationConfig",
    "Outputs",
    "boxes_by_teacher",
    "boxes_by_truth",
    "features",
    "features_at_objects",
    "whole_rows",
]
