"""Searches of the tiny recipe: its files, and spaces over it."""

from pathlib import Path
from typing import Any

import tiny
import tiny_runs
import yaml

from yolo_dist.config import validate
from yolo_dist.tune.record import TrialRecord
from yolo_dist.tune.space import Space


def prepare(folder: Path, **changes: Any) -> Path:
    """What the tiny recipe refers to, and the recipe as a file."""
    tiny_runs.prepare(folder)
    (folder / "recipe.yaml").write_text(yaml.safe_dump(tiny.recipe_values(folder, **changes)))
    return folder


def space(folder: Path, **changes: Any) -> Space:
    """Two learning rates times two percents, tried in turn, unless changed."""
    values = {
        "name": "tiny-search",
        "recipe": str(folder / "recipe.yaml"),
        "space": {"base.optimizer.learning_rate": {"grid": [0.01, 0.02]}, "pruned.percent": {"grid": [0.3, 0.5]}},
        "objectives": {"map50": "maximise", "parameters": "minimise"},
        "searcher": "grid",
        "storage": str(folder / "searches"),
    }
    return validate(Space, values | changes, "space.yaml")


def record(name: str, map50: float, parameters: float, ended: float = 1.0, **changes: Any) -> TrialRecord:
    """A finished trial of one percent."""
    row = {"id": "tuned", "seconds": 2.0, "cached": False, "map50": map50, "parameters": 1000, "macs": 5}
    return TrialRecord(
        **{
            "id": name,
            "values": {"pruned.percent": 1 - parameters / 1000},
            "state": "finished",
            "began": 0.0,
            "ended": ended,
            "measured": {"map50": map50, "parameters": parameters},
            "stages": (row,),
        }
        | changes
    )
