"""A trial as Ray Tune sees it: a process that tells of stages, evaluations, after which it can be stopped, and its end.

The pipeline runs in a thread of its own, which ends with the process. It is no function of Tune's, for inside of one
Ray Train refuses to train in the same process.
"""

import os
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from queue import Empty, SimpleQueue
from typing import Any

from ray import tune
from upath import UPath

from yolo_dist.errors import ConfigError, StorageError
from yolo_dist.layout import METRICS_FILE
from yolo_dist.pipeline import OwnStages, Stages
from yolo_dist.recipe import Recipe
from yolo_dist.stage_cache import StageResult
from yolo_dist.storage import location
from yolo_dist.train.tracking import read_metrics
from yolo_dist.tune.objective import costs_known_at, losses, measures_of
from yolo_dist.tune.record import TrialRecord, finished_stages
from yolo_dist.tune.space import Space, Values, trial_id
from yolo_dist.tune.trial import TrialPlan, run_trial

LOOKING_SECONDS = 1.0


@dataclass(frozen=True)
class _ToldStages:
    """Stages of which it is told when each begins."""

    stages: Stages
    begun: "SimpleQueue[Any]"

    @contextmanager
    def doing(self, stage: str, key: str, run: UPath, is_whole: Callable[[], bool]) -> Iterator[UPath]:
        self.begun.put(stage)
        with self.stages.doing(stage, key, run, is_whole) as unfinished:
            yield unfinished


class TrialProcess(tune.Trainable):
    """Runs one trial after another, each from its values under `values`."""

    plan: TrialPlan
    _next: Values | None
    _happened: "SimpleQueue[str | TrialRecord | BaseException]"
    _watched: str | None
    _told: dict[str, Any]

    def setup(self, config: dict[str, Any], plan: TrialPlan) -> None:  # type: ignore[override]  # with_parameters
        """Take on the first trial, which begins with the first step: Tune makes processes that it does without."""
        self.plan, self._next = plan, config["values"]
        with suppress(FileNotFoundError):  # a job on another node has a copy of it as its own working folder
            os.chdir(plan.working_folder)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Take on another; Tune asks only where no trial is stopped, so the one before is over."""
        self._next = new_config["values"]
        return True

    def step(self) -> dict[str, Any]:
        """Wait for the next stage, the next evaluation of the one that is watched, or the end."""
        if self._next is not None:
            self._begin(self._next)
        while True:
            if self._watched and self._happened.empty() and (news := self._news()) is not None:
                self._told = news
                return {**news, "done": False}
            try:
                happened = self._happened.get(timeout=LOOKING_SECONDS if self._watched else None)
            except Empty:
                continue
            if isinstance(happened, BaseException):
                raise happened
            if isinstance(happened, TrialRecord):
                return {**self._told, "done": True, **outcome_of(happened, self.plan)}
            # Tune wants mAP in every report, and its rules pass over those without an epoch
            return {"stage": happened, "map": self._told["map"], "done": False}

    def _begin(self, values: Values) -> None:
        self._next, self._happened, self._told = None, SimpleQueue(), {"epoch": 0, "map": 0.0}
        self._id, self._watched, self._start, self._known = trial_id(values), None, None, tuple[str, ...]()
        if (stopping := self.plan.space.stopping) is not None:
            with suppress(ConfigError):  # a recipe that is refused is the trial's own to tell of
                recipe = self.plan.recipe_of(values)
                if (stage := stopping.stage_of(recipe)) is not None:
                    self._watched, self._start = stage.id, recipe.start_of(stage)
                    self._known = costs_known_at(stage, recipe)
        threading.Thread(target=self._do, args=(values,), name="trial", daemon=True).start()

    def _do(self, values: Values) -> None:
        try:
            self._happened.put(run_trial(replace(self.plan, run=self._run), values))
        except BaseException as error:
            self._happened.put(error)

    def _run(self, recipe: Recipe, stages: Stages | None) -> list[StageResult]:
        return self.plan.run(recipe, _ToldStages(stages or OwnStages(), self._happened))

    def _news(self) -> dict[str, Any] | None:
        """The first evaluation that was not told yet; after the last epoch nothing is left to stop. While the store is
        away there is none: the trial itself says so if it stays away."""
        with suppress(StorageError):
            return self._first_untold(location(self.plan.folder))
        return None

    def _first_untold(self, search: UPath) -> dict[str, Any] | None:
        for line in read_metrics(search / "trials" / self._id / METRICS_FILE):
            new = line["stage"] == self._watched and self._told["epoch"] < line["epoch"] < line["epochs"]
            if new and line.get("map") is not None:
                measured = self._costs(search) | measures_of(line)
                told = {"epoch": line["epoch"], "map": line["map"], "measured": measured}
                known = {name: way for name, way in self.plan.space.objectives.items() if name in measured}
                return told | {"losses_known": losses(measured, known)} | outcome(measured, self.plan.space)
        return None

    def _costs(self, search: UPath) -> dict[str, float]:
        """Of the network that the watched stage trains, from the row of the stage that it starts from; those that will
        be the searched stage's too."""
        rows = [row for row in finished_stages(search, self._id) if row["id"] == self._start]
        return {name: value for row in rows for name, value in measures_of(row).items() if name in self._known}


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
