"""`metrics.jsonl`: one line an epoch, of all stages of a run."""

import json
from typing import Any

from upath import UPath

from yolo_dist.object_store import persistently
from yolo_dist.storage import publish


class MetricsFile:
    """Writes one stage's lines; those of other stages stay."""

    def __init__(self, metrics: UPath, stage: str) -> None:
        self.metrics = metrics
        self.stage = stage
        self.lines = read_metrics(metrics)

    def log(self, line: dict[str, Any]) -> None:
        """Record an epoch; lines of this stage from here on are those of an earlier attempt, and go."""
        earlier = [old for old in self.lines if old["stage"] != self.stage or old["epoch"] < line["epoch"]]
        self.lines = [*earlier, {"stage": self.stage, **line}]
        publish(self.metrics, "".join(json.dumps(old) + "\n" for old in self.lines))


def read_metrics(metrics: UPath) -> list[dict[str, Any]]:
    """Lines of a `metrics.jsonl`, none where it does not exist."""
    text = persistently(metrics, lambda: metrics.read_text() if metrics.exists() else "")
    return [json.loads(line) for line in text.splitlines()]
