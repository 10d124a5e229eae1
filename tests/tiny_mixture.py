"""Two small datasets of the same kind of pictures, each of which labels some of the shapes on them."""

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import tiny
import yaml

from yolo_dist.data.card import find_card
from yolo_dist.data.conversion.convert import convert
from yolo_dist.data.joint_classes import join_classes
from yolo_dist.data.mixture import Mixture, MixturePlan, MixtureSource

CARDS: dict[str, dict[str, Any]] = {
    "street": {"classes": ["square", "disc"]},
    "home": {"classes": ["circle", "triangle"], "aliases": {"disc": "circle"}, "max_detections": 50},
}
JOINT = ("square", "disc", "triangle")
SHAPES = {"street": {"square": 0, "disc": 1}, "home": {"disc": 0, "triangle": 1}}
"""For each dataset the labels of the shapes that it knows."""
IMAGES = {"street": {"train": 6, "val": 3}, "home": {"train": 10, "val": 4}}


def write_sources(folder: Path) -> None:
    """For each dataset `NAME.yaml` and the converted shards in `shards/NAME`."""
    for number, (name, values) in enumerate(CARDS.items()):
        root, shards = folder / "download" / name, folder / "shards" / name
        splits = {split: {"images": f"images/{split}", "annotations": f"labels/{split}"} for split in IMAGES[name]}
        card = {"name": name, "format": "yolo_txt", "splits": splits} | values
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(card))
        for split, count in IMAGES[name].items():
            random = np.random.default_rng([number, count])
            for image in range(count):
                _write_image(root, split, f"{image:03}", SHAPES[name], random)
            convert(find_card(str(folder / f"{name}.yaml")), root, shards, split)


def open_mixture(folder: Path, split: str = "train", weights: tuple[float, float] = (0.75, 0.25)) -> Mixture:
    """The mixture of what `write_sources` wrote."""
    cards = [find_card(str(folder / f"{name}.yaml")) for name in CARDS]
    sources = tuple(
        MixtureSource(card.name, str(folder / "shards" / card.name / split), weight, card.max_detections)
        for card, weight in zip(cards, weights, strict=True)
    )
    return Mixture.open(MixturePlan(sources, join_classes(cards)))


def recipe_values(folder: Path, **changes: Any) -> dict[str, Any]:
    """The recipe of `tiny`, on the mixture."""
    cards = {name: str(folder / f"{name}.yaml") for name in CARDS}
    dataset = {"mix": {cards["street"]: 3, cards["home"]: 1}}
    shards = {card: str(folder / "shards" / name) for name, card in cards.items()}
    return tiny.recipe_values(folder) | {"dataset": dataset, "shards": shards} | changes


def _write_image(root: Path, split: str, name: str, known: dict[str, int], random: np.random.Generator) -> None:
    """One of each shape on a grey ground; the text names those that are known."""
    canvas = np.full((64, 64, 3), random.integers(40, 90), np.uint8)
    lines = []
    for shape, (x, y) in zip(JOINT, random.permutation([[16, 16], [48, 16], [16, 48], [48, 48]])[:3], strict=True):
        radius = int(random.integers(8, 15))
        _draw(canvas, shape, int(x), int(y), radius, tuple(random.integers(120, 256, 3).tolist()))
        if shape in known:
            lines.append(f"{known[shape]} {x / 64} {y / 64} {2 * radius / 64} {2 * radius / 64}")
    for folder, file, content in (
        ("images", f"{name}.jpg", cv2.imencode(".jpg", canvas)[1].tobytes()),
        ("labels", f"{name}.txt", "\n".join(lines).encode()),
    ):
        path = root / folder / split / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def _draw(canvas: np.ndarray[Any, Any], shape: str, x: int, y: int, radius: int, colour: tuple[int, ...]) -> None:
    if shape == "square":
        cv2.rectangle(canvas, (x - radius, y - radius), (x + radius, y + radius), colour, -1)
    elif shape == "disc":
        cv2.circle(canvas, (x, y), radius, colour, -1)
    else:
        cv2.fillPoly(canvas, [np.array([[x, y - radius], [x + radius, y + radius], [x - radius, y + radius]])], colour)
