"""A trial as Ray Tune sees it: a process that tells of evaluations, so that it can be stopped, and then of its end.

The pipeline runs in a thread of its own, which ends with the process. It is no function of Tune's, for inside of one
Ray Train refuses to train in the same process.
"""

import os
import threading
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from ray import tune
from upath import UPath

from yolo_dist.storage import location
from yolo_dist.train.tracking import read_metrics
from yolo_dist.tune.objective import ACCURACIES, losses, measures_of
from yolo_dist.tune.record import TrialRecord, finished_stages
from yolo_dist.tune.space import Space, Values, trial_id
from yolo_dist.tune.trial import TrialPlan, run_trial
from yolo_dist.tune.trial_tracking import METRICS_FILE

LOOKING_SECONDS = 1.0


class TrialProcess(tune.Trainable):
    """Runs one trial after another, each from its values under `values`."""

    plan: TrialPlan
    _values: Values
    _run: threading.Thread | None
    _watched: str | None
    _told: dict[str, Any]

    def setup(self, config: dict[str, Any], plan: TrialPlan) -> None:  # type: ignore[override]  # with_parameters
        """Take on the first trial, which begins with the first step: Tune makes processes that it does without."""
        self.plan, self._values, self._run = plan, config["values"], None
        with suppress(FileNotFoundError):  # a job on another node has a copy of it as its own working folder
            os.chdir(plan.working_folder)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Take on another; Tune asks only where no trial is stopped, so the one before is over."""
        self._values, self._run = new_config["values"], None
        return True

    def step(self) -> dict[str, Any]:
        """Wait for the next evaluation of the stage that is watched, or for the end."""
        run = self._run or self._begin(self._values)
        while run.is_alive():
            run.join(LOOKING_SECONDS if self._watched else None)
            if run.is_alive() and (news := self._news()) is not None:
                self._told = news
                return {**self._told, "done": False}
        if self._error is not None:
            raise self._error
        assert self._record is not None
        return {**self._told, "done": True, **outcome_of(self._record, self.plan)}

    def _begin(self, values: Values) -> threading.Thread:
        self._record: TrialRecord | None = None
        self._error: BaseException | None = None
        self._told = {"epoch": 0, "map": 0.0}
        self._id, recipe, stopping = trial_id(values), self.plan.recipe_of(values), self.plan.space.stopping
        stage = None if stopping is None else stopping.stage_of(recipe)
        self._watched = None if stage is None else stage.id
        self._start = None if stage is None else recipe.start_of(stage)
        self._run = threading.Thread(target=self._do, args=(values,), name="trial", daemon=True)
        self._run.start()
        return self._run

    def _do(self, values: Values) -> None:
        try:
            self._record = run_trial(self.plan, values)
        except BaseException as error:
            self._error = error

    def _news(self) -> dict[str, Any] | None:
        """The first evaluation that was not told yet; after the last epoch nothing is left to stop."""
        search = location(self.plan.folder)
        for line in read_metrics(search / "trials" / self._id / METRICS_FILE):
            new = line["stage"] == self._watched and self._told["epoch"] < line["epoch"] < line["epochs"]
            if new and line.get("map") is not None:
                measured = self._costs(search) | measures_of(line)
                told = {"epoch": line["epoch"], "map": line["map"], "measured": measured}
                known = {name: way for name, way in self.plan.space.objectives.items() if name in measured}
                return told | {"losses_known": losses(measured, known)} | outcome(measured, self.plan.space)
        return None

    def _costs(self, search: UPath) -> dict[str, float]:
        """Of the network that the watched stage trains, from the row of the stage that it starts from."""
        rows = [row for row in finished_stages(search, self._id) if row["id"] == self._start]
        return {name: value for row in rows for name, value in measures_of(row).items() if name not in ACCURACIES}


def outcome_of(record: TrialRecord, plan: TrialPlan) -> dict[str, Any]:
    """What searchers learn of a trial that is over."""
    return outcome(record.measured, plan.space)


def outcome(measured: Mapping[str, float], space: Space) -> dict[str, Any]:
    """Losses, and by how much limits are exceeded; neither where something that is asked for is not known.

    A trial that failed has no measures. One that is stopped has those of its last evaluation, so that it counts for
    searchers, which learn nothing from failures and begin only when enough trials have ended.
    """
    if not measured.keys() >= {*space.objectives, *space.constraints}:
        return {"losses": None, "excess": None}
    excess = [limit.excess(measured[name]) for name, limit in space.constraints.items()]
    return {"losses": losses(measured, space.objectives), "excess": excess}
