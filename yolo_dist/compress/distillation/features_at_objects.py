"""Strategy 5: as the fourth, with attention only where objects are (Wang et al. 2019, fine-grained imitation, §3.1)."""

from yolo_dist.compress.distillation.attention import attention_term
from yolo_dist.compress.distillation.boxes_by_teacher import distance_to_teacher
from yolo_dist.compress.distillation.scores import scores_term
from yolo_dist.compress.distillation.strategy import Comparison, Terms, strategy


@strategy(5, weights={"scores": 1e-3, "boxes": 1e-3, "features": 1e-3}, compares_features=True)
def features_at_objects(batch: Comparison) -> Terms:
    """Divergence of the scores, distance of boxes, and divergence of the attention in cells of matched objects."""
    return {
        "scores": scores_term(batch),
        "boxes": distance_to_teacher(batch),
        "features": attention_term(batch, at_objects=True),
    }
