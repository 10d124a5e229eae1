"""A network of nine layers and a handful of drawn scenes: training that takes a moment."""

from pathlib import Path
from typing import Any

from small_networks import cfg_of, conv

from yolo_dist.bundle import Bundle
from yolo_dist.config import validate
from yolo_dist.darknet.cfg import Route, Yolo
from yolo_dist.darknet.network import Network, initialize
from yolo_dist.data.card import Card, SplitSource
from yolo_dist.data.conversion.convert import convert
from yolo_dist.data.scenes import CLASSES, SceneSettings
from yolo_dist.data.shards import ShardSet, open_split
from yolo_dist.train.config import TrainConfig

SIZE = (64, 64)
ANCHORS = ((14.0, 14.0), (22.0, 22.0), (34.0, 34.0), (48.0, 48.0))
PLAIN: dict[str, float] = {"mosaic": 0, "hue": 0, "saturation": 0, "value": 0, "flip": 0}
"""No augmentation."""


def tiny_network(seed: int = 0, **options: Any) -> Network:
    """Two heads, at stride 8 for small objects and 16 for large ones; `options` for all convolutions between."""
    anchors = {"anchors": ANCHORS, "num": 4, "classes": len(CLASSES)}
    large, small = Yolo(mask=(2, 3), **anchors), Yolo(mask=(0, 1), **anchors)
    output = conv(large.channels, batch_normalize=0, activation="linear")
    backbone = [conv(filters, 3, 2, **options) for filters in (8, 16, 24, 32)]
    network = Network(cfg_of(*backbone, output, large, Route(layers=2), output, small, size=SIZE))
    initialize(network, seed)
    return network


def without_batch_norm(seed: int = 0) -> Network:
    """The same, with biases: no image of a batch sees another."""
    return tiny_network(seed, batch_normalize=0)


def tiny_bundle(network: Network) -> Bundle:
    """The network with the scenes' classes."""
    return Bundle(network, CLASSES, SIZE)


def scenes(destination: Path, images: int = 8, seed: int = 1) -> ShardSet:
    """Drawn scenes of 64×64 pixels, converted."""
    width, height = SIZE
    settings = SceneSettings(images=images, seed=seed, width=width, height=height, objects=(1, 3), diameter=(16, 40))
    card = Card(name="scenes", format="shapes", classes=CLASSES, splits={"train": SplitSource(generate=settings)})
    convert(card, "-", destination, "train")
    return open_split(destination, "train")


def training(**values: Any) -> TrainConfig:
    """A short stage without augmentation in float32, one batch a step."""
    usual: dict[str, Any] = {"epochs": 2, "batch_size": 4, "nominal_batch": 4, "autocast": False, "augment": PLAIN}
    return validate(TrainConfig, usual | values, "stage")
