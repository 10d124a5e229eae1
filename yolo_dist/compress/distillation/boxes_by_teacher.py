"""Strategy 3: scores, and boxes drawn to the teacher's."""

from torch import Tensor

from yolo_dist.compress.distillation.boxes import grid_boxes, squared_distance
from yolo_dist.compress.distillation.scores import scores_term
from yolo_dist.compress.distillation.strategy import Comparison, Terms, strategy


@strategy(3, weights={"scores": 1e-4, "boxes": 1e-3})
def boxes_by_teacher(batch: Comparison) -> Terms:
    """Divergence of the scores, and squared distance of matched boxes to the teacher's."""
    return {"scores": scores_term(batch), "boxes": distance_to_teacher(batch)}


def distance_to_teacher(batch: Comparison) -> Tensor:
    """Squared distance of the matched boxes of student and teacher, summed."""
    distances = [squared_distance(head.student, head.teacher).sum() for head in grid_boxes(batch)]
    return sum(distances[1:], start=distances[0])
