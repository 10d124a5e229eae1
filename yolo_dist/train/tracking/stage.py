"""A stage as trackers know it: its name among others, what an epoch says, what came out."""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from upath import UPath


@dataclass(frozen=True)
class TrackedStage:
    """A stage as trackers know it.

    Attributes:
        metrics: the run's `metrics.jsonl`; files of other trackers lie beside it.
        run: name of the run.
        stage: id of the stage.
        kind: of the stage.
        run_identity: tells this run from others of its name.
        stage_identity: changes with everything that the stage's result depends on.
        settings: the stage's configuration.
        recipe: what the run's recipe says beside its stages.
    """

    metrics: UPath
    run: str
    stage: str
    kind: str = "train"
    run_identity: str = ""
    stage_identity: str = ""
    settings: dict[str, Any] = field(default_factory=dict)
    recipe: dict[str, Any] = field(default_factory=dict)

    @property
    def identity(self) -> str:
        """16 hex digits: the same when an interrupted stage goes on, others for other runs, stages and settings."""
        parts = f"{self.run}/{self.run_identity}/{self.stage}/{self.stage_identity}"
        return hashlib.sha256(parts.encode()).hexdigest()[:16]

    @property
    def group(self) -> str:
        """What the stages of one run have in common."""
        return f"{self.run}-{self.run_identity}" if self.run_identity else self.run

    @property
    def configuration(self) -> dict[str, Any]:
        """The stage's settings, and beside them its place and its run's recipe; no URL in it has credentials."""
        place = {"stage": {"id": self.stage, "kind": self.kind}, "recipe": self.recipe}
        return {key: without_credentials(value) for key, value in (self.settings | place).items()}


@dataclass(frozen=True)
class Outcome:
    """What a finished stage has to show.

    Attributes:
        numbers: by name, parts of it divided by slashes.
        images: JPEG files, validation images with predicted and true boxes on them.
        files: the bundle's, or the exported one with its record; of a remote folder only the records.
        url: the folder that they are from.
        lasting: whether the files stay where they are.
    """

    numbers: dict[str, float]
    images: list[Path]
    files: list[Path]
    url: str
    lasting: bool = True


class Destination(Protocol):
    """A tracker behind `Tracker`; whatever it raises is its own end, not the stage's."""

    name: str

    def log(self, line: dict[str, Any]) -> None:
        """Record an epoch."""

    def finish(self, outcome: Outcome) -> None:
        """Record what came out of the stage."""

    def close(self, failed: bool) -> None:
        """Write everything down and let go; `failed` tells how the stage ended."""


def without_credentials(value: Any) -> Any:
    """A value with those in it; URLs, keys of mappings too, lose user, password and query, where keys and signatures
    are."""
    match value:
        case str():
            # a password may have anything in it, Amazon's keys have slashes; a folder may have an @ in its name
            return re.sub(r"(://[^?]*)\?.*", r"\1", re.sub(r"://(?:[^/@]*:.*@|[^/]*@)", "://", value))
        case Mapping():
            return {without_credentials(key): without_credentials(one) for key, one in value.items()}
        case list() | tuple():
            return [without_credentials(one) for one in value]
    return value


def numbers_of(values: Mapping[str, Any], prefix: str = "") -> dict[str, float]:
    """Numbers in nested objects, by their keys joined with slashes; all else is left out."""
    flat: dict[str, float] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            flat |= numbers_of(value, f"{prefix}{key}/")
        elif isinstance(value, int | float):
            flat[f"{prefix}{key}"] = value
    return flat
