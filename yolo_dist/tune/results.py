"""What came out of a search, as data: `tune.json`."""

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import optuna

from yolo_dist.config import Config
from yolo_dist.tune.objective import ACCURACIES, Direction, Limit, Measure, feasible, losses
from yolo_dist.tune.pareto import front_of, hypervolumes, knee_of
from yolo_dist.tune.pauses import Pause, running_seconds
from yolo_dist.tune.record import TrialRecord
from yolo_dist.tune.space import Space

FEWEST_FOR_IMPORTANCE = 8
SEARCH_FILE = "tune.json"


class Progress(Config):
    """The hypervolume once a trial was over."""

    trial: str
    seconds: float
    """That the search had run since its first trial began."""
    hypervolume: float


class SearchResults(Config):
    """A search, so far as it has come."""

    name: str
    objectives: dict[Measure, Direction]
    constraints: dict[Measure, Limit]
    trials: tuple[TrialRecord, ...]
    """In the order in which they ended."""
    front: tuple[str, ...]
    """Finished trials within the limits that no other dominates, the best of the first objective first."""
    knee: str | None
    """The one that is suggested."""
    reference: dict[Measure, float]
    """Of each objective the worst that counts for the hypervolume: accuracy 0, the most that any stage cost."""
    hypervolume: tuple[Progress, ...]
    """As a share of everything between 0 and the reference."""
    importance: dict[str, dict[str, float]]
    """For each objective, which share of it each path decides, by PED-ANOVA (Watanabe et al. 2023); empty for few
    trials, and for one that is the same in all of them."""
    stages_run: int
    stages_taken: int
    """Stages that a trial took from another."""
    seconds_run: float
    """Of all stages that were run."""
    seconds_taken: float
    """That the taken ones had needed."""

    def trial(self, name: str) -> TrialRecord | None:
        """The trial of that id; `knee` is one too."""
        wanted = self.knee if name == "knee" else name
        return next((record for record in self.trials if record.id == wanted), None)

    def standing(self, record: TrialRecord) -> str:
        """What a trial is among the others: `knee`, `front`, `outside the limits`, or its state."""
        if record.id == self.knee:
            return "knee"
        if record.id in self.front:
            return "front"
        if record.state == "finished" and not feasible(record.measured, self.constraints):
            return "outside the limits"
        return record.state


def results_of(space: Space, records: Sequence[TrialRecord], pauses: Sequence[Pause] = ()) -> SearchResults:
    """What a search's trials tell together.

    Args:
        space: what was searched.
        records: of the trials that have begun.
        pauses: in which it did not run.
    """
    counting = [r for r in records if r.state == "finished" and feasible(r.measured, space.constraints)]
    points = [losses(record.measured, space.objectives) for record in counting]
    front = sorted(front_of(points), key=lambda number: points[number]) if points else []
    knee = counting[front[knee_of([points[number] for number in front])]].id if front else None
    reference = _reference(records, space)
    run, taken = _run_and_taken([row for record in records for row in record.stages])
    return SearchResults(
        name=space.name,
        objectives=dict(space.objectives),
        constraints=dict(space.constraints),
        trials=tuple(records),
        front=tuple(counting[number].id for number in front),
        knee=knee,
        reference=reference,
        hypervolume=tuple(_hypervolumes(counting, records, space, reference, pauses)),
        importance=_importance(counting, space),
        stages_run=len(run),
        stages_taken=len(taken),
        seconds_run=round(sum(row["seconds"] for row in run), 1),
        seconds_taken=round(sum(row["seconds"] for row in taken), 1),
    )


def _run_and_taken(rows: Sequence[Mapping[str, Any]]) -> tuple[list[Mapping[str, Any]], list[Mapping[str, Any]]]:
    """Rows of stages as they were run, and as trials took them.

    A trial that was interrupted finds its own stages as if another had done them: then nobody's row says that it was
    run, and the first to have it counts.
    """
    run = [row for row in rows if not row["cached"]]
    taken: list[Mapping[str, Any]] = []
    for row in (row for row in rows if row["cached"]):
        known = any(row.items() - {("cached", True)} <= other.items() for other in run)
        (taken if known else run).append(row)
    return run, taken


def _reference(records: Sequence[TrialRecord], space: Space) -> dict[Measure, float]:
    rows = [row for record in records for row in record.stages]
    costs = {name: [row[name] for row in rows if row.get(name) is not None] for name in space.objectives}
    return {name: 0.0 if name in ACCURACIES else float(max(costs[name], default=0)) for name in space.objectives}


def _hypervolumes(
    counting: Sequence[TrialRecord],
    records: Sequence[TrialRecord],
    space: Space,
    reference: Mapping[Measure, float],
    pauses: Sequence[Pause],
) -> list[Progress]:
    """Losses are scaled so that the volume of everything is 1: mAP is already, costs are divided by their reference."""
    began = min((record.began for record in records), default=0.0)
    corner = [0.0 if name in ACCURACIES else 1.0 for name in space.objectives]
    scales = [1.0 if name in ACCURACIES else reference[name] or 1.0 for name in space.objectives]
    points = np.array([losses(record.measured, space.objectives) for record in counting]).reshape(-1, len(scales))
    return [
        Progress(
            trial=record.id,
            seconds=round(running_seconds(began, record.ended or began, pauses), 1),
            hypervolume=round(volume, 6),
        )
        for record, volume in zip(counting, hypervolumes(points / scales, corner), strict=True)
    ]


def _importance(records: Sequence[TrialRecord], space: Space) -> dict[str, dict[str, float]]:
    if len(records) < FEWEST_FOR_IMPORTANCE:
        return {}
    return {name: _importance_for(number, records, space) for number, name in enumerate(space.objectives)}


def _importance_for(number: int, records: Sequence[TrialRecord], space: Space) -> dict[str, float]:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study()
    values = [losses(record.measured, space.objectives)[number] for record in records]
    if len(set(values)) == 1:
        return {}  # nothing decides what never changes
    for record, value in zip(records, values, strict=True):
        study.add_trial(_as_optuna(record, space, value))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it warns of fewer trials than it would like, as any search has
        shares = optuna.importance.get_param_importances(
            study, evaluator=optuna.importance.PedAnovaImportanceEvaluator()
        )
    # places of a list each by itself: their sum would be that of their noise
    return {place: round(share, 4) for place, share in sorted(shares.items(), key=lambda item: -item[1])}


def _as_optuna(record: TrialRecord, space: Space, loss: float) -> optuna.trial.FrozenTrial:
    places: dict[str, tuple[Any, Any]] = {
        place: (drawn, distribution.for_optuna())
        for path, distribution in space.space.items()
        for place, drawn in zip(distribution.places(path), distribution.drawn_for(record.values[path]), strict=True)
    }
    return optuna.trial.create_trial(
        params={place: drawn for place, (drawn, _) in places.items()},
        distributions={place: distribution for place, (_, distribution) in places.items()},
        value=loss,
    )
