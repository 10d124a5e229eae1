"""What is known of a trial: one JSON file in its folder, so that a search goes on after whatever ended it."""

import json
from collections.abc import Iterator
from typing import Any, Literal, Self

from pydantic import ValidationError
from upath import UPath

from yolo_dist.config import Config
from yolo_dist.layout import RESULTS_FILE
from yolo_dist.object_store import persistently
from yolo_dist.storage import publish
from yolo_dist.tune.space import Values

RECORD_FILE = "trial.json"


class TrialRecord(Config):
    """A trial, from its first moment on."""

    id: str
    values: Values
    """What it puts into the recipe, by path."""
    state: Literal["running", "finished", "stopped", "failed"]
    began: float
    """Seconds since 1970."""
    ended: float | None = None
    measured: dict[str, float] = {}  # noqa: RUF012  # pydantic copies it
    """By name what the searched stage's row of the results says; of a stopped trial its accuracy after its last epoch,
    and the costs of the network that was trained."""
    stages: tuple[dict[str, Any], ...] = ()
    """Rows of the results; `cached` where another trial had done the stage."""
    reason: str | None = None
    """Why it failed or was stopped."""
    lost: bool = False
    """Whether it failed by its process, its node or the store, and not by itself: `--resume` tries it again."""
    epoch: int | None = None
    """Of a stopped one, its last epoch in the stage that was watched."""
    map: float | None = None
    """mAP after it."""

    @property
    def over(self) -> bool:
        """Whether nothing is left to do."""
        return self.state != "running"

    def to_try_again(self) -> Self:
        """The record of a trial that was lost as one that still runs."""
        return self.model_copy(update={"state": "running", "ended": None, "reason": None, "lost": False})

    def save(self, search: UPath) -> None:
        """Write it into its folder in a search's."""
        publish(search / "trials" / self.id / RECORD_FILE, self.model_dump_json(indent=2))


def finished_stages(search: UPath, trial: str) -> tuple[dict[str, Any], ...]:
    """Rows of the results of the stages that a trial came through, whatever it ended with."""
    try:
        file = search / "trials" / trial / RESULTS_FILE
        return tuple(json.loads(persistently(file, file.read_bytes)))
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return ()


def read_record(search: UPath, trial: str) -> TrialRecord | None:
    """The record of a trial; None where there is none that can be read."""
    try:
        file = search / "trials" / trial / RECORD_FILE
        return TrialRecord.model_validate_json(persistently(file, file.read_bytes))
    except (FileNotFoundError, NotADirectoryError, ValidationError):
        return None


def read_records(search: UPath) -> list[TrialRecord]:
    """All trials of a search in the order in which they ended, those that run last."""
    return sorted(_records(search), key=lambda record: (record.ended or float("inf"), record.began, record.id))


def _records(search: UPath) -> Iterator[TrialRecord]:
    trials = search / "trials"
    for folder in persistently(trials, lambda: list(trials.iterdir()) if trials.exists() else []):
        if (record := read_record(search, folder.name)) is not None:
            yield record
