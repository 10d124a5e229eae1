"""Strategy 4: scores and boxes of the teacher, and the attention of its layers (Zagoruyko & Komodakis 2017)."""

from yolo_dist.compress.distillation.attention import attention_term
from yolo_dist.compress.distillation.boxes_by_teacher import distance_to_teacher
from yolo_dist.compress.distillation.scores import scores_term
from yolo_dist.compress.distillation.strategy import Comparison, Terms, strategy


@strategy(4, weights={"scores": 1e-3, "boxes": 1e-3, "features": 1e-3}, compares_features=True)
def features(batch: Comparison) -> Terms:
    """Divergence of the scores, distance of boxes, and divergence of the attention of the compared layers."""
    return {
        "scores": scores_term(batch),
        "boxes": distance_to_teacher(batch),
        "features": attention_term(batch, at_objects=False),
    }
