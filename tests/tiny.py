"""A dataset, a network and a recipe so small that a whole run takes a second or two."""

import shutil
from pathlib import Path
from typing import Any

import torch

from yolo_dist.bundle import Bundle
from yolo_dist.darknet.cfg import parse_cfg
from yolo_dist.darknet.network import Network, initialize
from yolo_dist.data.card import find_card
from yolo_dist.data.conversion.convert import convert
from yolo_dist.data.scenes import CLASSES

SIZE = (64, 64)

CARD = """
name: tiny
format: shapes
classes: [circle, square, triangle]
splits:
  train: {generate: {images: 12, seed: 1, width: 64, height: 64, diameter: [16, 32], objects: [1, 3]}}
  val: {generate: {images: 6, seed: 2, width: 64, height: 64, diameter: [16, 32], objects: [1, 3]}}
"""

CFG = """
[net]
width=64
height=64
channels=3

[convolutional]
batch_normalize=1
filters=8
size=3
stride=2
pad=1
activation=leaky

[convolutional]
batch_normalize=1
filters=16
size=3
stride=2
pad=1
activation=leaky

[maxpool]
size=2
stride=2

[convolutional]
batch_normalize=1
filters=16
size=3
stride=2
pad=1
activation=leaky

[convolutional]
filters=24
size=1
stride=1
activation=linear

[yolo]
mask=0,1,2
anchors=16,16, 24,24, 32,32
classes=3
num=3
"""


def write_card(folder: Path) -> Path:
    """The card of twelve training and six validation scenes."""
    path = folder / "tiny.yaml"
    path.write_text(CARD)
    return path


def write_cfg(folder: Path) -> Path:
    """The cfg of three convolutions and a head of stride 16."""
    path = folder / "tiny.cfg"
    path.write_text(CFG)
    return path


def write_shards(folder: Path) -> Path:
    """Both splits of the card, converted."""
    write_card(folder)
    return _convert_splits(folder)


def _convert_splits(folder: Path) -> Path:
    card = find_card(str(folder / "tiny.yaml"))
    for split in card.splits:
        convert(card, "-", folder / "shards", split)
    return folder / "shards"


def rename_splits(folder: Path, **names: str) -> None:
    """Convert the splits anew by a card that calls them otherwise, in place of the first."""
    shutil.rmtree(folder / "shards")
    text = CARD
    for name, other in names.items():
        text = text.replace(f"  {name}:", f"  {other}:")
    (folder / "tiny.yaml").write_text(text)
    _convert_splits(folder)


def make_bundle(seed: int = 0) -> Bundle:
    """The network of the cfg, with numbers in it that training would have left."""
    network = Network(parse_cfg(CFG, "tiny.cfg"))
    initialize(network, seed)
    generator = torch.Generator().manual_seed(seed)
    for name, value in network.state_dict().items():
        if value.is_floating_point() and "conv" not in name:
            value.copy_(torch.rand(value.shape, generator=generator) + 0.5)
    return Bundle(network.eval(), CLASSES, SIZE)


def recipe_values(folder: Path, **changes: Any) -> dict[str, Any]:
    """Train, prune by half, fine-tune, in this process; what it refers to lies in `folder`."""
    return {
        "name": "tiny",
        "dataset": str(folder / "tiny.yaml"),
        "shards": str(folder / "shards"),
        "model": str(folder / "tiny.cfg"),
        "image_size": 64,
        "stages": [
            {"id": "base", "kind": "train", "epochs": 1},
            {"id": "pruned", "kind": "prune", "percent": 0.5, "force": True},
            {"id": "tuned", "kind": "train", "epochs": 1},
        ],
        "cluster": {"workers": 0},
        "storage": str(folder / "runs"),
    } | changes
