"""Stages to track, epochs to log, and something to show at the end."""

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from upath import UPath

from yolo_dist.compress.sparsity import measure_sparsity
from yolo_dist.train.tracking import Outcome, TrackedStage

GAUGE = measure_sparsity({0: np.array([1.0, 1.0, 1.0, 0.0], np.float32)}).as_json()


def epoch(number: int, **more: Any) -> dict[str, Any]:
    """A line of metrics.jsonl."""
    return {
        "epoch": number,
        "epochs": 20,
        "step": number * 10,
        "loss": {"box": 1.0, "objectness": 2.0, "class": 0.5, "total": 3.5},
        "learning_rate": 0.01,
        "learning_rates": {"biases": 0.04, "weights": 0.01, "scales": 0.01},
        "images_per_second": 41.6,
        "seconds": 12.0,
        "seconds_left": 75.4,
    } | more


def tracked(folder: Path, stage: str = "base", **more: Any) -> TrackedStage:
    """A stage of a run in `folder`."""
    return TrackedStage(UPath(folder / "metrics.jsonl"), "run", stage, **{"settings": {"epochs": 20}} | more)


def outcome(folder: Path) -> Outcome:
    """A bundle of two files, an image and three numbers."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.cfg").write_text("[net]\n")
    (folder / "bundle.json").write_text("{}")
    Image.fromarray(np.full((6, 4, 3), 200, np.uint8)).save(folder / "000.jpg")
    numbers = {"result/map50": 0.75, "before/map50": 0.5, "proof/macs/after": 1e6}
    return Outcome(numbers, [folder / "000.jpg"], [folder / "model.cfg", folder / "bundle.json"], str(folder))
