"""When a trial is given up before its end: by mAP after the same epoch of the same stage as that of others.

Ray Tune's rules compare mAP alone, which would cut off the small end of a front. Where more is asked for they stop only
a trial that another beats after the same epoch: one that is on no front of what is known then (non-dominated rank as in
Schmucker et al. 2021, "Multi-objective Asynchronous Successive Halving").
"""

import math
import sys
from collections.abc import Collection
from typing import Annotated, Any, Literal

from annotated_types import Ge, Gt
from ray.tune.experiment import Trial
from ray.tune.schedulers import AsyncHyperBandScheduler, FIFOScheduler, MedianStoppingRule, TrialScheduler

from yolo_dist.config import Config
from yolo_dist.recipe import Recipe, TrainStage
from yolo_dist.tune.objective import ACCURACIES
from yolo_dist.tune.pareto import front_of

NEVER_PAUSED: Any = math.inf
"""Epochs before which the median rule pauses no trial that it can compare with few: that takes Tune's checkpoints."""


class StoppingConfig(Config):
    """Early stopping inside one training stage, whose evaluations it compares between trials."""

    rule: Literal["asha", "median"] = "asha"
    """`asha`: only the best share goes on past each rung (Li et al. 2020, "A System for Massively Parallel
    Hyperparameter Tuning"); `median`: whose best mAP is under the median of the others' means ends (Golovin et al.
    2017, "Google Vizier")."""
    stage: str | None = None
    """The stage; the last training stage by default."""
    grace: Annotated[int, Ge(1)] = 1
    """Epochs of that stage that every trial gets."""
    reduction: Annotated[float, Gt(1)] = 3
    """For `asha`: one in so many trials goes on, and rungs lie at grace · reduction^k epochs."""

    def stage_of(self, recipe: Recipe) -> TrainStage | None:
        """The stage whose evaluations count; None where a recipe has none of that name, or no training stage."""
        stages = [stage for stage in recipe.stages if isinstance(stage, TrainStage)]
        named = [stage for stage in stages if self.stage in (None, stage.id)]
        return named[-1] if named else None

    def problems_of(self, recipe: Recipe) -> list[str]:
        """Why it cannot stop a trial of a recipe."""
        stage = self.stage_of(recipe)
        if stage is None:
            return [f"stopping.stage: the recipe has no training stage {self.stage or ''}".rstrip()]
        if stage.evaluate_every == 0:
            return [f"stopping: stage {stage.id} is evaluated only at its end; give it another evaluate_every"]
        if self.grace > stage.epochs:
            return [f"stopping.grace: {self.grace} is more than the {stage.epochs} epochs of stage {stage.id}"]
        if not any(stage.evaluates_after(epoch) for epoch in range(self.grace - 1, stage.epochs)):
            return [
                f"stopping: stage {stage.id} is not evaluated from epoch {self.grace} on before its end; give it a "
                "smaller evaluate_every, or stopping a smaller grace"
            ]
        return []


def scheduler_of(stopping: StoppingConfig | None, objectives: Collection[str]) -> TrialScheduler:
    """Ray Tune's scheduler; it reads `map` by `epoch`, and passes over reports without them.

    Trials that `losses_known` of a report puts on the front of those told of the same epoch go on, unless an accuracy
    is the only objective: then the rule alone decides.
    """
    if stopping is None:
        return FIFOScheduler()
    sparing = len(objectives) > 1 or not set(objectives) <= set(ACCURACIES)
    if stopping.rule == "median":
        return _Median("epoch", "map", "max", grace_period=stopping.grace, min_time_slice=NEVER_PAUSED, sparing=sparing)
    return _Asha(
        "epoch",
        "map",
        "max",
        max_t=sys.maxsize,  # trials may differ in how many epochs they have, and leave the rungs beyond empty
        grace_period=stopping.grace,
        reduction_factor=stopping.reduction,
        stop_last_trials=False,
        sparing=sparing,
    )


class _Sparing(FIFOScheduler):
    """Knows what lies on the front after each epoch, of losses so far as they are known then."""

    def __init__(self, *args: Any, sparing: bool, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)  # type: ignore[no-untyped-call]
        self._sparing = sparing
        self._told: dict[int, dict[str, list[float]]] = {}

    def _on_front(self, trial: Trial, report: dict[str, Any]) -> bool:
        """Note a report; whether no other of the same epoch beats it."""
        if not self._sparing or (losses := report.get("losses_known")) is None:
            return False
        told = self._told.setdefault(report["epoch"], {})
        told[trial.trial_id] = losses
        comparable = {name: others for name, others in told.items() if len(others) == len(losses)}
        return list(comparable).index(trial.trial_id) in front_of(list(comparable.values()))


class _Asha(_Sparing, AsyncHyperBandScheduler):
    def on_trial_result(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> str:
        decision = super().on_trial_result(tune_controller, trial, result)
        return TrialScheduler.CONTINUE if self._on_front(trial, result) else decision


class _Median(_Sparing, MedianStoppingRule):
    def on_trial_result(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> str:
        if "epoch" in result:  # a trial that begins anew tells of all its evaluations again
            self._results[trial] = [told for told in self._results[trial] if told["epoch"] < result["epoch"]]
        if not self._on_front(trial, result):
            return super().on_trial_result(tune_controller, trial, result)
        self._results[trial].append(result)  # and nothing else: once the rule decides, a trial counts as stopped
        return TrialScheduler.CONTINUE

    def on_trial_complete(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> None:
        """Note nothing: the last result repeats the last evaluation."""
