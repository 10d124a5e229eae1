"""What strangers' files go through: for each reader valid examples, and how bytes are given to it."""

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import tiny
from made_datasets import boxes_of, coco_dataset, jpeg, raw_shards
from scipy.io import savemat

from yolo_dist.bundle import RECORD_FILE, open_bundle
from yolo_dist.compress.graph import ChannelGraph
from yolo_dist.darknet.cfg import format_cfg, read_cfg
from yolo_dist.darknet.network import Network
from yolo_dist.darknet.shapes import count_macs, count_parameters
from yolo_dist.darknet.weights import load_weights, weights_bytes
from yolo_dist.darknet.zoo import zoo_cfg
from yolo_dist.data.card import Card, SplitSource, find_card
from yolo_dist.data.conversion.convert import ConvertConfig, convert
from yolo_dist.data.image import decode_image
from yolo_dist.data.manifest import MANIFEST
from yolo_dist.data.shard_file import Sample
from yolo_dist.data.shards import ShardSet, open_split
from yolo_dist.recipe import read_recipe
from yolo_dist.shipped import shipped_folder
from yolo_dist.storage import location
from yolo_dist.tune.space import read_space

HAND = ((20, 10), (10, 30), (30, 50), (35, 25))


@dataclass(frozen=True)
class Target:
    """A reader.

    Attributes:
        examples: valid files, of whose bytes hostile ones are made.
        read: gives a file's bytes to the reader; a folder is there for what it needs beside it.
    """

    examples: Callable[[Path], Sequence[bytes]]
    read: Callable[[bytes, Path], object]


def _of_file(name: str, read: Callable[[Path], object]) -> Callable[[bytes, Path], object]:
    def given(data: bytes, folder: Path) -> object:
        (folder / name).write_bytes(data)
        return read(folder / name)

    return given


def _cfg(path: Path) -> object:
    cfg = read_cfg(path)
    return count_parameters(cfg), count_macs(cfg, (64, 64)), ChannelGraph.from_cfg(cfg.with_size((64, 64)))


def _cfgs(_: Path) -> Sequence[bytes]:
    return [tiny.CFG.encode(), *(format_cfg(zoo_cfg(name)).encode() for name in ("yolov3-tiny", "yolov4-tiny"))]


@cache
def _network() -> Network:
    return tiny.make_bundle().network


def _bundle(data: bytes, folder: Path) -> object:
    if not (folder / "bundle").exists():
        tiny.make_bundle().save(folder / "bundle")
    (folder / "bundle" / RECORD_FILE).write_bytes(data)
    return open_bundle(folder / "bundle")


def _bundle_examples(folder: Path) -> Sequence[bytes]:
    tiny.make_bundle().save(folder / "example")
    return [(folder / "example" / RECORD_FILE).read_bytes()]


def _shards(folder: Path) -> ShardSet:
    samples = [Sample(str(number), jpeg(seed=number), 60, 40, boxes_of((1, 2, 30, 20))) for number in range(3)]
    folder.mkdir(exist_ok=True)
    shards = raw_shards(folder, samples)
    (folder / MANIFEST).write_text(shards.manifest.to_json())
    return shards


def _read_all(shards: ShardSet) -> object:
    return [decode_image(sample.image) for sample in shards]


def _manifest(data: bytes, folder: Path) -> object:
    if not (folder / "train").exists():
        _shards(folder / "train")
    (folder / "train" / MANIFEST).write_bytes(data)
    return _read_all(open_split(folder, "train"))


def _manifest_examples(folder: Path) -> Sequence[bytes]:
    return [_shards(folder / "example").manifest.to_json().encode()]


def _shard(data: bytes, folder: Path) -> object:
    """A stranger's manifest has the right hash of whatever the shard is."""
    manifest = _shards(folder / "train").manifest
    record = manifest.shards[0]
    (folder / "train" / record.file).write_bytes(data)
    record = record.model_copy(update={"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()})
    (folder / "train" / MANIFEST).write_text(manifest.model_copy(update={"shards": (record,)}).to_json())
    return _read_all(open_split(folder, "train"))


def _shard_examples(folder: Path) -> Sequence[bytes]:
    shards = _shards(folder / "example")
    return [(folder / "example" / shards.manifest.shards[0].file).read_bytes()]


def _annotations(format_: str, name: str, source: SplitSource) -> Callable[[bytes, Path], object]:
    """A whole conversion, of one image."""
    card = Card(name="hostile", format=format_, classes=("cat", "dog"), splits={"train": source})

    def given(data: bytes, folder: Path) -> object:
        for path, content in ((folder / source.images / "a.jpg", jpeg()), (folder / name, data)):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        if source.list is not None:
            (folder / source.list).write_text("a\n")
        return convert(card, folder, location(folder / "converted"), "train", ConvertConfig())

    return given


def _coco(folder: Path) -> Sequence[bytes]:
    box = {"id": 1, "image_id": 1, "category_id": 17, "bbox": [1, 2, 30, 20], "area": 600, "iscrowd": 0}
    root = coco_dataset(folder / "coco", {"a.jpg": jpeg()}, [box])
    return [(root / "annotations" / "train.json").read_bytes()]


def _voc(_: Path) -> Sequence[bytes]:
    box = "<bndbox><xmin>1</xmin><ymin>2</ymin><xmax>30</xmax><ymax>20</ymax></bndbox>"
    size = "<size><width>60</width><height>40</height><depth>3</depth></size>"
    return [f"<annotation>{size}<object><name>cat</name>{box}</object></annotation>".encode()]


def _bdd(_: Path) -> Sequence[bytes]:
    labels = [{"category": "cat", "box2d": {"x1": 1, "y1": 2, "x2": 30, "y2": 20}, "attributes": {"crowd": False}}]
    frame = {"name": "a.jpg", "labels": labels}
    return [json.dumps([frame]).encode(), json.dumps({"frames": [frame]}).encode()]


def _hand(folder: Path) -> Sequence[bytes]:
    cells = np.empty((1, 1), object)
    cells[0, 0] = {name: np.array([corner], float) for name, corner in zip("abcd", HAND, strict=True)}
    savemat(folder / "plain.mat", {"boxes": cells})
    savemat(folder / "compressed.mat", {"boxes": cells}, do_compression=True)
    return [(folder / "plain.mat").read_bytes(), (folder / "compressed.mat").read_bytes()]


def _yaml_of(name: str) -> Callable[[Path], Sequence[bytes]]:
    return lambda _: [path.read_bytes() for path in sorted(shipped_folder(name).glob("*.yaml"))]


TARGETS = {
    "cfg": Target(_cfgs, _of_file("network.cfg", _cfg)),
    "weights": Target(
        lambda _: [weights_bytes(_network())],
        _of_file("network.weights", lambda path: load_weights(_network(), path)),
    ),
    "bundle": Target(_bundle_examples, _bundle),
    "manifest": Target(_manifest_examples, _manifest),
    "shard": Target(_shard_examples, _shard),
    "image": Target(lambda _: [jpeg(), jpeg(optimize=True, progressive=True)], lambda data, _: decode_image(data)),
    "card": Target(_yaml_of("datasets"), _of_file("card.yaml", lambda path: find_card(str(path)))),
    "recipe": Target(_yaml_of("launch"), _of_file("recipe.yaml", lambda path: read_recipe(str(path)))),
    "space": Target(_yaml_of("tune_spaces"), _of_file("space.yaml", lambda path: read_space(str(path)))),
    "coco_json": Target(
        _coco, _annotations("coco_json", "train.json", SplitSource(images="photos", annotations="train.json"))
    ),
    "voc_xml": Target(
        _voc, _annotations("voc_xml", "labels/a.xml", SplitSource(images="photos", annotations="labels"))
    ),
    "yolo_txt": Target(
        lambda _: [b"0 0.5 0.5 0.5 0.5\n1 0.25 0.25 0.1 0.2\n"],
        _annotations("yolo_txt", "labels/a.txt", SplitSource(images="photos", annotations="labels")),
    ),
    "bdd_json": Target(
        _bdd, _annotations("bdd_json", "train.json", SplitSource(images="photos", annotations="train.json"))
    ),
    "visdrone_txt": Target(
        lambda _: [b"1,2,30,20,1,1,0,0\n5,6,7,8,1,2,0,0\n"],
        _annotations("visdrone_txt", "labels/a.txt", SplitSource(images="photos", annotations="labels")),
    ),
    "hand_mat": Target(
        _hand, _annotations("hand_mat", "labels/a.mat", SplitSource(images="photos", annotations="labels"))
    ),
}
