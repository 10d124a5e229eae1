"""A trial as one run of Weights & Biases, in the group of its search, with the epochs of all its stages."""

from typing import Any

from upath import UPath

from yolo_dist.layout import METRICS_FILE
from yolo_dist.recipe import Recipe
from yolo_dist.stage_tracking import shown_of
from yolo_dist.train.tracking import Outcome, TrackedStage, numbers_of, read_metrics, track_outcome
from yolo_dist.tune.record import TrialRecord


def track_trial(record: TrialRecord, search: str, identity: str, recipe: Recipe | None, folder: UPath) -> None:
    """Record a trial that is over, if Weights & Biases are asked for.

    Args:
        record: of the trial.
        search: its name.
        identity: tells it from other searches of that name.
        recipe: that the search varies; without it nobody is told.
        folder: of the search.
    """
    if recipe is None or not recipe.tracking.uses_wandb:
        return
    run = folder / "trials" / record.id
    settings = {**record.values, "state": record.state}
    stage = TrackedStage(
        run / METRICS_FILE, search, record.id, "trial", identity, settings=settings, recipe=shown_of(recipe)
    )
    numbers = numbers_of(record.measured, "result/")
    for row in record.stages:
        numbers |= numbers_of(row, f"stages/{row['id']}/")
    outcome = Outcome(numbers, images=[], files=[], url=str(run))
    track_outcome(stage, recipe.tracking.model_copy(update={"tensorboard": False}), outcome, _epochs(run))


def _epochs(run: UPath) -> list[dict[str, Any]]:
    """Lines of all stages, numbered through from 1."""
    return [line | {"epoch": number} for number, line in enumerate(read_metrics(run / METRICS_FILE), 1)]
