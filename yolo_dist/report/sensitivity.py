"""What each layer can lose, as one self-contained HTML page."""

from yolo_dist.compress.sensitivity.record import Sensitivity
from yolo_dist.report import figures
from yolo_dist.report.page import fill


def render_sensitivity(sensitivity: Sensitivity, model: str) -> str:
    """The page as HTML text; `model` names the network for the reader."""
    return fill(
        "sensitivity.html",
        sensitivity=sensitivity,
        model=model,
        map=figures.sensitivity_map(sensitivity),
        curves=figures.sensitivity_curves(sensitivity),
    )
