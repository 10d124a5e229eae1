"""Strategy 2: scores, and boxes drawn to the truth while the teacher's are nearer to it (Chen et al. 2017, §3.3)."""

from yolo_dist.compress.distillation.boxes import grid_boxes, squared_distance
from yolo_dist.compress.distillation.scores import scores_term
from yolo_dist.compress.distillation.strategy import Comparison, Terms, strategy


@strategy(2, weights={"scores": 1e-4, "boxes": 1e-3})
def boxes_by_truth(batch: Comparison) -> Terms:
    """Divergence of the scores, and squared distance to the truth of boxes farther from it than the teacher's."""
    boxes = batch.student.raws[0].new_zeros(())
    for head in grid_boxes(batch):
        ours, theirs = (squared_distance(own, head.truth) for own in (head.student, head.teacher))
        boxes = boxes + (ours * (ours > theirs)).sum()
    return {"scores": scores_term(batch), "boxes": boxes}
