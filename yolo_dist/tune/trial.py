"""One trial: a recipe run through the pipeline, in the search's folder, and what is known of it afterwards."""

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from ray.exceptions import RayError, RayTaskError

from yolo_dist.errors import Interrupted, MachineFailed, RunHeld, StorageError, TrainError, YoloDistError
from yolo_dist.pipeline import Stages, run
from yolo_dist.recipe import Recipe
from yolo_dist.shortage import is_full_disk
from yolo_dist.stage_cache import StageResult
from yolo_dist.storage import location
from yolo_dist.tune.objective import MEASURES
from yolo_dist.tune.record import TrialRecord, finished_stages, read_record
from yolo_dist.tune.shared_stages import SharedStages
from yolo_dist.tune.space import Space, Values, recipe_of, trial_id, up_to_stage
from yolo_dist.tune.trial_tracking import track_trial

PASSING = (StorageError, RunHeld, MachineFailed)
"""What says nothing of a trial: a store that is away for a while, a process that is not known to be dead yet, and a
machine that was lost or has a full disk."""

Run = Callable[[Recipe, Stages | None], list[StageResult]]


def run_pipeline(recipe: Recipe, stages: Stages | None) -> list[StageResult]:
    """What a trial does with its recipe."""
    return run(recipe, stages=stages)


@dataclass(frozen=True)
class TrialPlan:
    """What all trials of a search have in common; travels to them.

    Attributes:
        space: of the search.
        recipe: what its recipe's file says.
        folder: URL of the search's folder.
        identity: tells trackers this search from others of its name.
        working_folder: where the search was started, to which the recipe's paths are relative.
        run: what is done with each recipe; benchmarks have their own.
        plain: the recipe without a trial's values, of which trackers are told.
    """

    space: Space
    recipe: Mapping[str, Any]
    folder: str
    identity: str = ""
    working_folder: str = "."
    run: Run = run_pipeline
    plain: Recipe | None = None

    def recipe_of(self, values: Values) -> Recipe:
        """A trial's recipe: its run lies in the search's folder, and W&B gets a run a trial, not one a stage."""
        recipe = up_to_stage(recipe_of(self.space, self.recipe, values), self.space.stage)
        place = {"name": trial_id(values), "storage": f"{self.folder}/trials"}
        return recipe.model_copy(update={**place, "tracking": recipe.tracking.model_copy(update={"wandb": None})})


def run_trial(plan: TrialPlan, values: Values) -> TrialRecord:
    """Run a trial to its end, one that failed too, and write down what came of it; interrupted, the same call goes on.
    One that is over is not run again.

    Raises:
        Interrupted: it was asked to end, and is not over.
        Exception: of what `is_passing` says that it may be tried again; the trial is not over.
    """
    search, name = location(plan.folder), trial_id(values)
    before = read_record(search, name)
    if before is not None and before.over:
        return before
    record = TrialRecord(id=name, values=values, state="running", began=before.began if before else time.time())
    record.save(search)
    try:
        results = plan.run(plan.recipe_of(values), SharedStages(search / "shared") if plan.space.share_stages else None)
        outcome: dict[str, Any] = {"state": "finished", "stages": [asdict(result) for result in results]}
        outcome["measured"] = _measured(results, plan.space)
    except Exception as error:  # whatever a trial runs into, the others are worth more
        if isinstance(error, Interrupted) or is_passing(error):
            raise
        unexpected = "" if isinstance(error, YoloDistError) else f"unexpected {type(error).__name__}: "
        outcome = {"state": "failed", "reason": unexpected + " ".join(str(error).split())}
    outcome = {"stages": finished_stages(search, name), "ended": time.time(), **outcome}
    if (told := read_record(search, name)) is not None and told.over:
        return told  # it was stopped, and failed because of that
    record = TrialRecord.model_validate({**record.model_dump(), **outcome})
    track_trial(record, plan.space.name, plan.identity, plan.plain, search)
    record.save(search)
    return record


def is_passing(error: Exception) -> bool:
    """Whether an error says nothing of the trial that it ended, which may be tried again."""
    lost = isinstance(error, RayError) and not isinstance(error, RayTaskError)
    return isinstance(error, PASSING) or lost or is_full_disk(error)


def _measured(results: list[StageResult], space: Space) -> dict[str, float]:
    """What the searched stage's row of the results says.

    Raises:
        TrainError: it says nothing about something that is asked for.
    """
    row = next(result for result in reversed(results) if space.stage in (None, result.id))
    measured = {name: value for name in MEASURES if (value := getattr(row, name)) is not None}
    if missing := [name for name in (*space.objectives, *space.constraints) if name not in measured]:
        raise TrainError(f"stage {row.id} reports no {' and no '.join(missing)}")
    return measured
