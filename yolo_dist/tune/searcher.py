"""Which values the next trial gets: from a list, or from what Optuna makes of the trials before.

Optuna is asked directly and not through Ray Tune's `OptunaSearch`, which knows no constraints, and to which several
objectives of earlier trials cannot be told when a search goes on.
"""

import math
import random
import warnings
from collections import deque
from collections.abc import Sequence
from typing import Any

import optuna
from ray.tune.search import Searcher

from yolo_dist.tune.space import Space, Values, trial_id

ATTEMPTS = 100
"""Proposals of a point that was there before, after which the space counts as searched through."""

Outcome = dict[str, Any]
"""`losses` and `excess` of a trial that is over, those of its last evaluation where it was stopped; each None where it
failed."""


class Proposals(Searcher):
    """Proposes each point at most once.

    Args:
        space: what is searched.
        known: values and outcome of the trials that are over.
        first: values to begin with, those of trials that were interrupted.
    """

    def __init__(self, space: Space, known: Sequence[tuple[Values, Outcome]], first: Sequence[Values]) -> None:
        super().__init__()
        self.space = space
        self.study = _Study(space, len(known))
        self.proposed = {trial_id(values) for values, _ in known}
        self.left = space.most_trials - len(known)
        self._queue = deque(first)
        self._running: dict[str, optuna.Trial] = {}
        for values, outcome in known:
            self.study.tell(self.study.ask(values), outcome)

    def suggest(self, trial_id: str) -> dict[str, Any]:
        """The next trial's configuration."""
        proposal = self._next() if self.left > 0 else None
        if proposal is None:
            finished: dict[str, Any] = Searcher.FINISHED  # type: ignore[assignment]  # Tune compares with this text
            return finished
        self._running[trial_id], values = proposal
        self.left -= 1
        return {"values": values}

    def on_trial_complete(self, trial_id: str, result: Outcome | None = None, error: bool = False) -> None:  # noqa: ARG002
        """Learn from a trial that is over."""
        if (trial := self._running.pop(trial_id, None)) is not None:
            self.study.tell(trial, result or {})

    def save(self, checkpoint_path: str) -> None:
        """Nothing: the trials' own records tell all."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing."""

    def _next(self) -> tuple[optuna.Trial, Values] | None:
        for _ in range(ATTEMPTS + len(self.proposed)):
            trial = self.study.ask(self._queue.popleft() if self._queue else None)
            if trial is None:
                return None
            values = self.study.values_of(trial)
            if trial_id(values) not in self.proposed:
                self.proposed.add(trial_id(values))
                return trial, values
            self.study.tell(trial, {})
        return self._left_over()

    def _left_over(self) -> tuple[optuna.Trial, Values] | None:
        """A point that nobody proposed yet: one who has learnt where the best are asks for the same ones again."""
        points = self.space.grid_size
        if points is None or len(self.proposed) >= points:
            return None
        start = random.Random(self.space.seed + len(self.proposed)).randrange(points)
        candidates = (self.space.point((start + offset) % points) for offset in range(points))
        values = next(values for values in candidates if trial_id(values) not in self.proposed)
        self.proposed.add(trial_id(values))
        return self.study.ask(values), values


class _Study:
    """Optuna's study of a space."""

    def __init__(self, space: Space, known: int) -> None:
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self.space = space
        self._next_point = 0
        self._places = {
            place: distribution.for_optuna()
            for path, distribution in space.space.items()
            for place in distribution.places(path)
        }
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            sampler = _sampler(space, known)
        self._study = optuna.create_study(directions=["minimize"] * len(space.objectives), sampler=sampler)

    def ask(self, values: Values | None = None) -> Any:
        """A trial of given values, or of those that come next; None at the end of a grid."""
        if values is None and self.space.searcher == "grid":
            if self._next_point == self.space.grid_size:
                return None
            values, self._next_point = self.space.point(self._next_point), self._next_point + 1
        if values is not None:
            self._study.enqueue_trial(self._drawn_for(values))
        trial = self._study.ask(self._places)
        if isinstance(sampler := self._study.sampler, optuna.samplers.NSGAIISampler):
            # Optuna does not ask it about a trial whose values are given, and parents are those of a generation
            sampler.get_trial_generation(self._study, self._study.get_trials(deepcopy=False)[trial.number])
        return trial

    def tell(self, trial: optuna.Trial, outcome: Outcome) -> None:
        """What came of it."""
        if outcome.get("losses") is None:
            self._study.tell(trial, state=optuna.trial.TrialState.FAIL)
            return
        for name, excess in zip(self.space.constraints, outcome["excess"], strict=True):
            trial.set_constraint(name, excess)
        self._study.tell(trial, outcome["losses"])

    def values_of(self, trial: optuna.Trial) -> Values:
        """The recipe's values of what was drawn."""
        return {
            path: distribution.value_of([trial.params[place] for place in distribution.places(path)])
            for path, distribution in self.space.space.items()
        }

    def _drawn_for(self, values: Values) -> dict[str, Any]:
        return {
            place: drawn
            for path, distribution in self.space.space.items()
            for place, drawn in zip(distribution.places(path), distribution.drawn_for(values[path]), strict=True)
        }


def _sampler(space: Space, known: int) -> optuna.samplers.BaseSampler:
    seed = space.seed + known  # one that goes on must not draw again what it drew at first
    match space.searcher:
        case "tpe":
            first = max(3, min(10, space.most_trials // 3))
            return optuna.samplers.TPESampler(
                seed=seed, n_startup_trials=first, multivariate=True, constant_liar=(space.concurrent or 2) > 1
            )
        case "nsga2":
            return optuna.samplers.NSGAIISampler(seed=seed, population_size=max(4, math.isqrt(space.most_trials)))
        case _:
            return optuna.samplers.RandomSampler(seed=seed)
