"""A trial as Ray Tune sees it: a process that tells of evaluations, so that it can be stopped, and then of its end.

The pipeline runs in a thread of its own, which ends with the process. It is no function of Tune's, for inside of one
Ray Train refuses to train in the same process.
"""

import os
import threading
from contextlib import suppress
from typing import Any

from ray import tune

from yolo_dist.errors import ConfigError
from yolo_dist.storage import location
from yolo_dist.train.tracking import read_metrics
from yolo_dist.tune.objective import losses
from yolo_dist.tune.record import TrialRecord
from yolo_dist.tune.space import Values, trial_id
from yolo_dist.tune.trial import TrialPlan, run_trial

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
        self._metrics = location(self.plan.folder) / "trials" / trial_id(values) / "metrics.jsonl"
        self._watched = None
        if (stopping := self.plan.space.stopping) is not None:
            with suppress(ConfigError):  # a recipe that is refused is the trial's own to tell of
                stage = stopping.stage_of(self.plan.recipe_of(values))
                self._watched = None if stage is None else stage.id
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
        for line in read_metrics(self._metrics):
            new = line["stage"] == self._watched and self._told["epoch"] < line["epoch"] < line["epochs"]
            if new and line.get("map") is not None:
                return {"epoch": line["epoch"], "map": line["map"]}
        return None


def outcome_of(record: TrialRecord, plan: TrialPlan) -> dict[str, Any]:
    """What searchers learn of a trial: losses, and by how much limits are exceeded; of one that failed, neither."""
    if record.state != "finished":
        return {"losses": None, "excess": None}
    excess = [limit.excess(record.measured[name]) for name, limit in plan.space.constraints.items()]
    return {"losses": losses(record.measured, plan.space.objectives), "excess": excess}
