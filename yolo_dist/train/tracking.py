"""Where a stage's progress goes: a line a person can read, `metrics.jsonl`, and Weights & Biases."""

import json
import sys
from typing import Any, Literal, Self

import wandb
from upath import UPath

from yolo_dist.compress.sparsity import describe_gauge
from yolo_dist.config import Config
from yolo_dist.object_store import is_remote
from yolo_dist.storage import publish


class WandbConfig(Config):
    """Weights & Biases; the key comes from the environment (WANDB_API_KEY), never from a recipe."""

    project: str = "yolo-dist"
    """Project that the runs belong to."""
    mode: Literal["online", "offline", "disabled"] = "offline"
    """`offline` writes beside the run and needs no network."""


class TrackingConfig(Config):
    """Trackers beside `metrics.jsonl`, which is always written."""

    wandb: WandbConfig | None = None


class Tracker:
    """Writes one line an epoch of one stage; used as a context so that trackers end properly.

    Args:
        metrics: the run's `metrics.jsonl`; lines of other stages stay.
        run: name of the run.
        stage: id of the stage.
        config: other trackers.
        settings: the stage's configuration, for the trackers to show.
    """

    def __init__(self, metrics: UPath, run: str, stage: str, config: TrackingConfig, settings: dict[str, Any]) -> None:
        self.metrics = metrics
        self.run = run
        self.stage = stage
        self.config = config
        self.settings = settings
        self.lines = read_metrics(metrics)
        self.wandb: wandb.Run | None = None

    def __enter__(self) -> Self:
        if self.config.wandb is not None and self.config.wandb.mode != "disabled":
            self.wandb = wandb.init(
                project=self.config.wandb.project,
                mode=self.config.wandb.mode,
                dir=self._folder(),
                id=f"{self.run}-{self.stage}",
                name=self.stage,
                group=self.run,
                resume="allow",
                config=self.settings,
            )
        return self

    def __exit__(self, *_error: object) -> None:
        if self.wandb is not None:
            self.wandb.finish()

    def _folder(self) -> str | None:
        """Where Weights & Biases keeps its files: beside the run, or where it always does if that is elsewhere."""
        if is_remote(self.metrics):
            return None
        self.metrics.parent.mkdir(parents=True, exist_ok=True)
        return str(self.metrics.parent)

    def log(self, line: dict[str, Any]) -> None:
        """Record an epoch (see docs/design.md for its keys) and tell the person who watches."""
        # lines of this stage from here on are those of an earlier attempt
        earlier = [old for old in self.lines if old["stage"] != self.stage or old["epoch"] < line["epoch"]]
        self.lines = [*earlier, {"stage": self.stage, **line}]
        publish(self.metrics, "".join(json.dumps(old) + "\n" for old in self.lines))
        if self.wandb is not None:
            self.wandb.log(_flat(line), step=line["epoch"])
        say(describe(self.stage, line))


def read_metrics(metrics: UPath) -> list[dict[str, Any]]:
    """Lines of a `metrics.jsonl`, none where it does not exist."""
    if not metrics.exists():
        return []
    return [json.loads(line) for line in metrics.read_text().splitlines()]


def describe(stage: str, line: dict[str, Any]) -> str:
    """One epoch as a line of text."""
    loss = line["loss"]
    left = line["seconds_left"]
    parts = [
        f"{stage}  epoch {line['epoch']}/{line['epochs']}",
        f"loss {loss['total']:.3f} ({', '.join(f'{name} {loss[name]:.3f}' for name in loss if name != 'total')})",
        f"lr {line['learning_rate']:.5f}",
        f"{line['images_per_second']:.0f} images/s",
        f"{int(left // 60)}:{int(left % 60):02d} left",
    ]
    if "map50" in line:
        parts.append(f"mAP50 {line['map50']:.3f}, mAP {line['map']:.3f}")
    for name, own in line.get("sources", {}).items():
        parts.append(f"{name} {own['map50']:.3f}")
    if "gauge" in line:
        parts.append(describe_gauge(line["gauge"]))
    return "  ".join(parts)


def say(text: str) -> None:
    """One line to the person who watches, from whatever process."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def _flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{key}/")
        elif isinstance(value, int | float | str):
            flat[prefix + key] = value
    return flat
