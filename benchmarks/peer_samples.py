"""What all contestants of `loader_peers.py` share: the same samples in every storage, the same work on each of them."""

import io
import tarfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from yolo_dist.data.annotations import Boxes
from yolo_dist.data.augment import AugmentConfig, augment
from yolo_dist.data.card import Card, SplitSource
from yolo_dist.data.conversion.convert import convert
from yolo_dist.data.image import Pixels, decode_image, letterbox_into, plan_letterbox, reduction
from yolo_dist.data.mosaic import mosaic_into
from yolo_dist.data.scenes import CLASSES, SceneSettings
from yolo_dist.data.shards import Sample, ShardSet, open_split

SIZE = (416, 416)
BATCH_SIZE = 16
"""Images of one process."""
FILES = 16
"""Tar or Parquet files: each process has the same number of them."""
BOXES = 8
"""Objects of an image that comes without annotations."""
JPEGS, TARS, PARQUETS, STREAMING = "jpegs", "tars", "parquets", "streaming"

Item = tuple[Pixels, Boxes]
Batch = tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]


def make_shards(source: Path | None, images: int, folder: Path) -> ShardSet:
    """All JPEGs below a folder, repeated under new names until there are enough, with random boxes; or scenes."""
    if source is None:
        splits = {"train": SplitSource(generate=SceneSettings(images=images, seed=1))}
        convert(Card(name="scenes", format="shapes", classes=CLASSES, splits=splits), "-", folder / "shards", "train")
        return open_split(folder / "shards", "train")
    originals = sorted(path for path in source.rglob("*") if path.suffix.lower() in (".jpg", ".jpeg"))
    if not originals:
        raise SystemExit(f"{source}: holds no JPEG")
    generator = np.random.default_rng(0)
    labelled = folder / "originals"
    labelled.mkdir()
    for number in range(images):
        original, name = originals[number % len(originals)], f"{number:05}"
        (labelled / f"{name}.jpg").symlink_to(original)
        sides = generator.uniform(0.05, 0.3, (BOXES, 2))
        rows = np.hstack([generator.uniform(0.15, 0.85, (BOXES, 2)), sides])
        (labelled / f"{name}.txt").write_text("".join(f"0 {x} {y} {w} {h}\n" for x, y, w, h in rows))
    splits = {"train": SplitSource(images=".", annotations=".")}
    card = Card(name="jpegs", format="yolo_txt", classes=("object",), splits=splits)
    convert(card, labelled, folder / "shards", "train")
    return open_split(folder / "shards", "train")


def pack(sample: Sample) -> bytes:
    """Size and boxes of a sample; the peers store them beside the JPEG."""
    rows = np.column_stack([sample.boxes.xyxy, sample.boxes.labels])
    return np.vstack([[sample.width, sample.height, 0, 0, 0], rows]).astype(np.float32).tobytes()


def unpack(image: bytes | memoryview, packed: bytes) -> Sample:
    """The sample of a JPEG and what `pack` made."""
    rows = np.frombuffer(packed, np.float32).reshape(-1, 5)
    boxes = Boxes(rows[1:, :4], rows[1:, 4].astype(np.int32), np.zeros(len(rows) - 1, np.bool_))
    return Sample("", image, int(rows[0, 0]), int(rows[0, 1]), boxes)


def write_files(shards: ShardSet, folder: Path) -> None:
    """The samples as single files, as tar files and as Parquet files."""
    for name in (JPEGS, TARS, PARQUETS):
        (folder / name).mkdir()
    for file in range(FILES):
        samples = [shards[number] for number in range(file, len(shards), FILES)]
        images, packed = [bytes(one.image) for one in samples], [pack(one) for one in samples]
        names = [f"{number:06}" for number in range(file, len(shards), FILES)]
        pq.write_table(
            pa.table({"image": images, "packed": packed}),
            folder / PARQUETS / f"{file:02}.parquet",
            compression="none",
        )
        with tarfile.open(folder / TARS / f"{file:02}.tar", "w") as archive:
            for name, image, row in zip(names, images, packed, strict=True):
                _add(archive, f"{name}.jpg", image)
                _add(archive, f"{name}.packed", row)
                (folder / JPEGS / f"{name}.jpg").write_bytes(image)
                (folder / JPEGS / f"{name}.packed").write_bytes(row)


def _add(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(content)
    archive.addfile(member, io.BytesIO(content))


def plain_item(sample: Sample) -> Item:
    """The letterbox of a sample, and its boxes."""
    canvas = np.empty((SIZE[1], SIZE[0], 3), np.uint8)
    box = plan_letterbox(sample.width, sample.height, SIZE)
    letterbox_into(_decoded(sample, box.scale)[0], canvas, box)
    return canvas, Boxes(box.forward(sample.boxes.xyxy), sample.boxes.labels, sample.boxes.ignore)


def mosaic_item(samples: Sequence[Sample], generator: np.random.Generator) -> Item:
    """A mosaic of four samples with the default augmentation."""
    canvas = np.empty((SIZE[1], SIZE[0], 3), np.uint8)
    boxes = mosaic_into(map(_tile, samples), canvas, generator)
    return canvas, augment(canvas, boxes, AugmentConfig(), generator)


def _tile(sample: Sample) -> Item:
    image, factor = _decoded(sample, plan_letterbox(sample.width, sample.height, SIZE).scale)
    return image, Boxes(sample.boxes.xyxy / np.float32(factor), sample.boxes.labels, sample.boxes.ignore)


def _decoded(sample: Sample, scale: float) -> tuple[Pixels, int]:
    factor = reduction(sample.image, scale)
    return decode_image(sample.image, factor, trusted=True), factor


def collate(items: Sequence[Item]) -> Batch:
    """Images [B, 3, H, W], boxes, labels, and the image of each box."""
    boxes = [boxes for _, boxes in items]
    return (
        torch.from_numpy(np.stack([image for image, _ in items])).permute(0, 3, 1, 2),
        torch.from_numpy(np.concatenate([one.xyxy for one in boxes])),
        torch.from_numpy(np.concatenate([one.labels for one in boxes]).astype(np.int64)),
        torch.from_numpy(np.repeat(np.arange(len(boxes)), [len(one) for one in boxes])),
    )
