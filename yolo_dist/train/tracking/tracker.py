"""All trackers of a stage as one: what one of them cannot write never ends the stage."""

from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any, Self

from yolo_dist.console import say
from yolo_dist.train.tracking.config import TrackingConfig
from yolo_dist.train.tracking.metrics_file import MetricsFile
from yolo_dist.train.tracking.progress import describe
from yolo_dist.train.tracking.stage import Destination, Outcome, TrackedStage


class Tracker:
    """Writes one line an epoch of one stage; used as a context so that trackers end properly.

    Args:
        stage: what is tracked.
        config: trackers beside `metrics.jsonl`.
    """

    def __init__(self, stage: TrackedStage, config: TrackingConfig) -> None:
        self.stage = stage
        self.metrics = MetricsFile(stage.metrics, stage.stage)
        self._destinations = _Destinations(stage, config)

    def __enter__(self) -> Self:
        self._destinations.open()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_error: object) -> None:
        self._destinations.close(failed=kind is not None)

    def log(self, line: dict[str, Any]) -> None:
        """Record an epoch (see docs/design.md for its keys) and tell the person who watches."""
        self.metrics.log(line)
        self._destinations.each(lambda destination: destination.log(line))
        say(describe(self.stage.stage, line))


def track_outcome(
    stage: TrackedStage, config: TrackingConfig, outcome: Outcome, epochs: Iterable[dict[str, Any]] = ()
) -> None:
    """Record what came out of a stage of any kind; a training stage's goes where its epochs are.

    Args:
        stage: what is tracked.
        config: trackers beside `metrics.jsonl`.
        outcome: of the stage.
        epochs: lines that no tracker has got yet.
    """
    destinations = _Destinations(stage, config)
    destinations.open()
    for line in epochs:
        destinations.each(lambda destination, line=line: destination.log(line))  # type: ignore[misc]
    destinations.each(lambda destination: destination.finish(outcome))
    destinations.close()


class _Destinations:
    """Weights & Biases and TensorBoard, as far as they are asked for and work."""

    def __init__(self, stage: TrackedStage, config: TrackingConfig) -> None:
        self.stage = stage
        self.config = config
        self.working: list[Destination] = []

    def open(self) -> None:
        """Start them; the libraries are only imported where they are used, for they take a second."""
        if self.config.wandb is not None and self.config.uses_wandb:
            try:
                from yolo_dist.train.tracking.weights_and_biases import WandbRun

                self.working.append(WandbRun(self.stage, self.config.wandb))
            except Exception as error:
                self._give_up("Weights & Biases", error)
        if self.config.tensorboard:
            try:
                from yolo_dist.train.tracking.tensorboard import EventFiles

                self.working.append(EventFiles(self.stage))
            except Exception as error:
                self._give_up("TensorBoard", error)

    def each(self, action: Callable[[Destination], None]) -> None:
        """Do something with each; one that fails is told to close and gets nothing any more."""
        for destination in list(self.working):
            try:
                action(destination)
            except Exception as error:  # whatever a tracker runs into, hours of training are worth more
                self.working.remove(destination)
                self._give_up(destination.name, error)
                with suppress(Exception):
                    destination.close(failed=True)

    def close(self, failed: bool = False) -> None:
        """Close all."""
        self.each(lambda destination: destination.close(failed))
        self.working = []

    def _give_up(self, name: str, error: Exception) -> None:
        lines = str(error).splitlines() or [""]
        say(f"{self.stage.stage}: {name} failed ({type(error).__name__}: {lines[0]}); going on without it")
