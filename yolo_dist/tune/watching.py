"""What the search's own process does as trials begin and end: write down what they cannot, and tell people."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ray import cloudpickle, tune
from ray.tune.experiment import Trial

from yolo_dist.console import say
from yolo_dist.errors import StorageError
from yolo_dist.report import words
from yolo_dist.storage import location, publish
from yolo_dist.tune.objective import Measure
from yolo_dist.tune.pauses import read_pauses
from yolo_dist.tune.record import TrialRecord, finished_stages, read_record, read_records
from yolo_dist.tune.results import SEARCH_FILE, SearchResults, results_of
from yolo_dist.tune.space import Values, trial_id
from yolo_dist.tune.trial import PASSING, TrialPlan
from yolo_dist.tune.trial_tracking import track_trial

SHOWN: dict[str, Any] = {
    "map50": lambda value: f"mAP50 {value:.3f}",
    "map": lambda value: f"mAP {value:.3f}",
    "parameters": lambda value: f"{words.short(value)} parameters",
    "macs": lambda value: f"{words.short(value)} MACs",
    "weight_bytes": words.size,
    "latency_ms": words.milliseconds,
}


PLACES = {"knee": ", on the front", "front": ", on the front", "outside the limits": ", outside the limits"}


class Watching(tune.Callback):
    """Keeps `tune.json` up to date and says when a trial and each of its stages begin, and what came of it.

    Args:
        plan: of the search.
        clock: in seconds.
    """

    def __init__(self, plan: TrialPlan, clock: Any = time.monotonic) -> None:
        self.plan = plan
        self.folder = location(plan.folder)
        self.clock = clock
        self.first: tuple[float, int] | None = None
        """When the first trial was over, and how many are then."""

    def on_trial_start(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:  # noqa: ARG002
        """A trial begins."""
        values = trial.config["values"]
        say(f"{trial_id(values)} begins ({_listed(values)})")

    def on_trial_result(
        self,
        iteration: int,  # noqa: ARG002
        trials: list[Trial],  # noqa: ARG002
        trial: Trial,
        result: dict[str, Any],
        **info: Any,  # noqa: ARG002
    ) -> None:
        """A trial begins a stage, or tells of an evaluation."""
        if "stage" in result:
            say(f"{trial_id(trial.config['values'])}: {result['stage']} …")

    def on_trial_complete(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:  # noqa: ARG002
        """A trial came to its end, or was stopped before it."""
        last = trial.last_result or {}
        self._over(trial, "stopped", f"fell behind after epoch {last.get('epoch')}", last)

    def on_trial_error(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:  # noqa: ARG002
        """A trial's process was lost, as often as it may be."""
        self._over(trial, "failed", _reason(trial), trial.last_result or {})

    def _over(self, trial: Trial, state: str, reason: str, last: dict[str, Any]) -> None:
        try:
            self._write_down(trial.config["values"], state, reason, last)
        except StorageError as error:  # Tune would take it for the trial's
            say(f"{trial_id(trial.config['values'])} is over, and cannot be written down: {error}")

    def _write_down(self, values: Values, state: str, reason: str, last: dict[str, Any]) -> None:
        record = read_record(self.folder, trial_id(values))
        if record is None or not record.over:
            record = TrialRecord.model_validate(
                {
                    "id": trial_id(values),
                    "values": values,
                    "began": record.began if record else time.time(),
                    "ended": time.time(),
                    "state": state,
                    "reason": reason,
                    "lost": state == "failed",
                    "stages": finished_stages(self.folder, trial_id(values)),
                    "epoch": last.get("epoch"),
                    "map": last.get("map"),
                    "measured": last.get("measured", {}) if state == "stopped" else {},
                }
            )
            record.save(self.folder)
            track_trial(record, self.plan.space.name, self.plan.identity, self.plan.plain, self.folder)
        results = write_results(self.plan)
        say(describe(record, results))
        say(f"  {self._progress(results)}")

    def _progress(self, results: SearchResults) -> str:
        """How far the search is, what is best so far, and how long the rest takes if it goes on like this."""
        over = [record for record in results.trials if record.over]
        total = self.plan.space.most_trials
        parts = [f"{len(over)} of {total} trials"]
        parts += [f"{count} {state}" for state in ("stopped", "failed") if (count := _count(over, state))]
        if (knee := results.trial("knee")) is not None:
            front = f"{len(results.front)} on the front, " if len(results.objectives) > 1 else ""
            parts.append(f"{front}best so far {knee.id} ({shown(knee.measured, list(results.objectives))})")
        if self.first is None:  # it trains what all share, and says nothing of the others
            self.first = self.clock(), len(over)
        began, first = self.first
        if first < len(over) < total:
            left = (self.clock() - began) / (len(over) - first) * (total - len(over))
            parts.append(f"about {words.duration(left)} left")
        return ", ".join(parts)


def _reason(trial: Trial) -> str:
    """From the file that Tune has just written; its own `get_error` looks where that is only copied to later."""
    error: Any = None
    if trial.pickled_error_file is not None and (file := Path(trial.pickled_error_file)).exists():
        error = cloudpickle.loads(file.read_bytes())
    if isinstance(known := getattr(error, "cause", error), (*PASSING, OSError)):
        return " ".join(str(known).split())
    text = str(error).strip().splitlines() if error is not None else []
    return f"its process or node was lost: {text[-1] if text else 'no more is known'}"


def _count(records: Sequence[TrialRecord], state: str) -> int:
    return sum(record.state == state for record in records)


def write_results(plan: TrialPlan) -> SearchResults:
    """Bring `tune.json` up to date."""
    folder = location(plan.folder)
    results = results_of(plan.space, read_records(folder), read_pauses(folder))
    publish(folder / SEARCH_FILE, results.model_dump_json(indent=2))
    return results


def describe(record: TrialRecord, results: SearchResults) -> str:
    """A trial that is over, as a line of text."""
    values = _listed(record.values)
    if record.state != "finished":
        return f"{record.id} {record.state}: {record.reason} ({values})"
    place = PLACES.get(results.standing(record), "")
    return f"{record.id}: {shown(record.measured, list(results.objectives))}{place} ({values})"


def _listed(values: Values) -> str:
    return ", ".join(f"{path} {value}" for path, value in values.items())


def shown(measured: dict[str, float], names: Sequence[Measure | str]) -> str:
    """Some measures as people read them."""
    return ", ".join(SHOWN[name](measured[name]) for name in names)
