"""Small datasets on disk, made for one test each."""

import hashlib
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from upath import UPath

from yolo_dist.data.annotations import Boxes
from yolo_dist.data.card import Card, SplitSource
from yolo_dist.data.conversion.convert import ConvertConfig, convert
from yolo_dist.data.manifest import Manifest, ShardRecord
from yolo_dist.data.scenes import CLASSES, SceneSettings
from yolo_dist.data.shard_file import write_shard_file
from yolo_dist.data.shards import Sample, ShardSet, open_split


def jpeg(width: int = 60, height: int = 40, seed: int = 0, **options: Any) -> bytes:
    """An encoded image of its own colour."""
    colour = tuple(np.random.default_rng(seed).integers(0, 256, 3).tolist())
    file = io.BytesIO()
    Image.new("RGB", (width, height), colour).save(file, "JPEG", **options)
    return file.getvalue()


def yolo_card(**changes: Any) -> Card:
    """A card for `yolo_dataset`."""
    split = SplitSource(images="images", annotations="labels")
    return Card(
        **{"name": "made", "format": "yolo_txt", "classes": ("cat", "dog"), "splits": {"train": split}} | changes
    )


def yolo_dataset(root: Path, images: dict[str, bytes], labels: dict[str, str]) -> Path:
    """A dataset in Darknet's layout; names carry no suffix."""
    for folder, suffix, files in (("images", ".jpg", images), ("labels", ".txt", labels)):
        for name, content in files.items():
            path = root / folder / f"{name}{suffix}"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content.encode() if isinstance(content, str) else content)
    return root


def good_yolo_dataset(root: Path, count: int = 40) -> Path:
    """`count` images with one or two boxes each."""
    names = [f"{number:03d}" for number in range(count)]
    labels = {name: "0 0.5 0.5 0.5 0.5\n" + "1 0.25 0.25 0.1 0.2\n" * (int(name) % 2) for name in names}
    return yolo_dataset(root, {name: jpeg(seed=int(name)) for name in names}, labels)


def voc_card(**changes: str) -> Card:
    """A card for `voc_dataset`."""
    places = {"images": "JPEGImages", "annotations": "Annotations", "list": "train.txt"} | changes
    return Card(name="voc", format="voc_xml", classes=("cat", "dog"), splits={"train": SplitSource(**places)})


def voc_dataset(root: Path, names: list[str], size: tuple[int, int] = (60, 40)) -> Path:
    """A dataset in Pascal VOC's layout, whose annotations note `size` (width, height)."""
    for folder in ("JPEGImages", "Annotations"):
        (root / folder).mkdir(parents=True)
    (root / "train.txt").write_text("\r\n".join(names) + "\r\n")
    for number, name in enumerate(names):
        (root / "JPEGImages" / f"{name}.jpg").write_bytes(jpeg(seed=number))
        (root / "Annotations" / f"{name}.xml").write_text(
            f"<annotation><size><width>{size[0]}</width><height>{size[1]}</height></size><object><name>dog</name>"
            "<bndbox><xmin>11</xmin><ymin>6</ymin><xmax>30</xmax><ymax>20</ymax></bndbox></object></annotation>"
        )
    return root


def coco_dataset(root: Path, images: dict[str, bytes], annotations: list[dict[str, Any]]) -> Path:
    """A dataset in COCO's layout; image ids count from 1."""
    content = {
        "images": [{"id": number, "file_name": name} for number, name in enumerate(images, start=1)],
        "annotations": annotations,
        "categories": [{"id": 17, "name": "cat"}, {"id": 18, "name": "dog"}],
    }
    for folder in ("annotations", "photos"):
        (root / folder).mkdir(parents=True)
    (root / "annotations" / "train.json").write_text(json.dumps(content))
    for name, data in images.items():
        (root / "photos" / name).write_bytes(data)
    return root


def coco_card() -> Card:
    """A card for `coco_dataset`."""
    split = SplitSource(images="photos", annotations="annotations/train.json")
    return Card(name="made", format="coco_json", classes=("cat", "dog"), splits={"train": split})


def scenes(destination: Path, images: int, **settings: Any) -> ShardSet:
    """Generated scenes, converted."""
    source = SplitSource(generate=SceneSettings(images=images, seed=7, **settings))
    card = Card(name="scenes", format="shapes", classes=CLASSES, splits={"train": source})
    convert(card, "-", destination, "train", ConvertConfig(shard_bytes=100_000))
    return open_split(destination, "train")


def raw_shards(folder: Path, samples: Sequence[Sample]) -> ShardSet:
    """A shard set of exactly these samples, whatever they hold."""
    path = folder / "shard-00000.arrow"
    together = Boxes(
        np.concatenate([sample.boxes.xyxy for sample in samples]),
        np.concatenate([sample.boxes.labels for sample in samples]),
        np.concatenate([sample.boxes.ignore for sample in samples]),
    )
    write_shard_file(
        path,
        [sample.image_id for sample in samples],
        memoryview(b"".join(sample.image for sample in samples)),
        np.cumsum([len(sample.image) for sample in samples]).tolist(),
        np.array([(sample.width, sample.height) for sample in samples], np.int32),
        together,
        [len(sample.boxes) for sample in samples],
    )
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    record = ShardRecord(file=path.name, rows=len(samples), bytes=path.stat().st_size, sha256=digest)
    manifest = Manifest(
        dataset="raw",
        split="train",
        classes=("cat", "dog", "cow"),
        images=len(samples),
        boxes={},
        ignored=0,
        rejected={},
        examples={},
        shards=(record,),
    )
    return ShardSet(UPath(folder), manifest)


def boxes_of(*xyxy: tuple[float, float, float, float]) -> Boxes:
    """Boxes of class 0, 1, 2, …"""
    count = len(xyxy)
    return Boxes(np.array(xyxy, np.float32).reshape(-1, 4), np.arange(count, dtype=np.int32), np.zeros(count, np.bool_))
