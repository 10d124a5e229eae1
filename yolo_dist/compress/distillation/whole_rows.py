"""Strategy 1: whole prediction rows, softened, as Hinton et al. 2015 do with class scores."""

from yolo_dist.compress.distillation.divergence import softened_divergence
from yolo_dist.compress.distillation.strategy import Comparison, Terms, strategy


@strategy(1, weights={"rows": 1e-3})
def whole_rows(batch: Comparison) -> Terms:
    """Divergence of all rows: box, objectness and classes as one distribution."""
    divergences = [
        softened_divergence(student.flatten(0, 3), teacher.flatten(0, 3), batch.temperature)
        for student, teacher in zip(batch.student.raws, batch.teacher.raws, strict=True)
    ]
    return {"rows": sum(divergences[1:], start=divergences[0]) / batch.images}
