"""The demo: the whole road on data it makes itself."""

import json

from yolo_dist.console import say
from yolo_dist.data.card import find_card
from yolo_dist.data.conversion.convert import convert
from yolo_dist.data.shards import MANIFEST
from yolo_dist.pipeline import run
from yolo_dist.recipe import Recipe, read_recipe
from yolo_dist.shipped import shipped_folder
from yolo_dist.stage_cache import StageResult
from yolo_dist.storage import location


def run_demo(storage: str, data: str, overrides: list[str]) -> tuple[Recipe, list[StageResult]]:
    """Make the shapes dataset under `data` if it is not there, and run `launch/shapes.yaml` into `storage`."""
    places = {"shards": location(data) / "shapes", "storage": location(storage)}
    # quoted: YAML takes " #" for a comment and ": " for a mapping
    fixed = [f"{key}={json.dumps(str(place), ensure_ascii=False)}" for key, place in places.items()]
    recipe = read_recipe(str(shipped_folder("launch") / "shapes.yaml"), fixed + overrides)
    ((name, shards),) = recipe.shards_of.items()
    card = find_card(name)
    for split in (recipe.train_split, recipe.validation_split):
        if not (location(shards) / split / MANIFEST).exists():
            say(f"drawing the {split} split of {card.name} …")
            convert(card, "-", shards, split)
    return recipe, run(recipe)
