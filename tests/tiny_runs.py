"""Runs of the tiny recipe: its files, its values, and where its stages lie."""

from pathlib import Path
from typing import Any

import tiny

from yolo_dist.recipe import Recipe, make_recipe
from yolo_dist.stage_cache import StageResult


def prepare(folder: Path) -> Path:
    """A card, its shards and a cfg in `folder`."""
    tiny.write_cfg(folder)
    tiny.write_shards(folder)
    return folder


def recipe(folder: Path, *overrides: str, **changes: Any) -> Recipe:
    """The tiny recipe on what `prepare` wrote."""
    return make_recipe(tiny.recipe_values(folder, **changes), "tiny.yaml", list(overrides))


def redone(results: list[StageResult]) -> list[str]:
    """The stages that did not come from the cache."""
    return [result.id for result in results if not result.cached]


def stage_file(folder: Path, stage: str, name: str) -> Path:
    """A file of a stage in the recipe's run."""
    return folder / "runs" / "tiny" / "stages" / stage / name
