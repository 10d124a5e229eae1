"""What benchmarks of training train on: drawn scenes, and a yolov3-tiny with first weights."""

from pathlib import Path

from yolo_dist.darknet.network import Network, initialize
from yolo_dist.darknet.zoo import zoo_cfg
from yolo_dist.data.card import Card, SplitSource
from yolo_dist.data.conversion.convert import convert
from yolo_dist.data.scenes import CLASSES, SceneSettings
from yolo_dist.data.shards import ShardSet

SIZE = (416, 416)


def make_shards(folder: Path, images: int) -> ShardSet:
    """Generated scenes of 416 px."""
    scenes = SceneSettings(images=images, seed=1, width=SIZE[0], height=SIZE[1])
    splits = {"train": SplitSource(generate=scenes)}
    convert(Card(name="scenes", format="shapes", classes=CLASSES, splits=splits), "-", folder, "train")
    return ShardSet.open(folder / "train")


def make_network() -> Network:
    """yolov3-tiny with first weights."""
    network = Network(zoo_cfg("yolov3-tiny", classes=len(CLASSES), image_size=SIZE))
    initialize(network, 0)
    return network
