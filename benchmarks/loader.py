"""How close the loader comes to the limit: bare JPEG decoding and resizing of the same files with the same library.

Then what decoding at a fraction of their size saves for images of 1280 × 720: in a process like that of a training
worker, and in one with the allocator's defaults, where every whole image also costs the kernel clearing its pages.

Run: python benchmarks/loader.py [--source FOLDER] [--large-source FOLDER]
"""

import argparse
import multiprocessing
import tempfile
import time
from pathlib import Path
from unittest.mock import patch

import cv2
import numpy as np
from measure import Race, publish_result, race, show

from yolo_dist.data.augment import AugmentConfig
from yolo_dist.data.card import Card, SplitSource
from yolo_dist.data.conversion.convert import convert
from yolo_dist.data.image import plan_letterbox
from yolo_dist.data.loader import Loader
from yolo_dist.data.scenes import CLASSES, SceneSettings
from yolo_dist.data.shards import ShardSet, open_split
from yolo_dist.freed_memory import keep_freed_memory

SIZE = (416, 416)
BATCH_SIZE = 16
DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
BCCD, BDD = DATA / "bccd" / "JPEGImages", DATA / "bdd100k" / "images"
LARGE, WHOLE, REDUCED = (1280, 720), "decoded whole", "decoded as small as the input allows"
AS_WORKERS, BY_DEFAULT = "keeping freed memory as training workers do", "with the allocator's defaults"
LIMIT, PLAIN, LIGHT, MOSAIC = "bare decode + resize", "loader", "loader, flip + colour", "loader, mosaic + all"


def shards_of(source: Path | None, folder: Path, scenes: SceneSettings) -> ShardSet:
    """The JPEGs of a folder as shards, or generated scenes."""
    if source is None:
        splits = {"train": SplitSource(generate=scenes)}
        convert(Card(name="scenes", format="shapes", classes=CLASSES, splits=splits), "-", folder, "train")
    else:
        files = {"train": SplitSource(images=".", annotations=".")}
        convert(Card(name="jpegs", format="yolo_txt", classes=("none",), splits=files), source, folder, "train")
    return open_split(folder, "train")


def bare(files: list[bytes], sizes: list[tuple[int, int]]) -> int:
    """Decode and resize, and nothing else."""
    for data, size in zip(files, sizes, strict=True):
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB)
        assert image is not None
        cv2.resize(image, size)
    return len(files)


def load(shards: ShardSet, augment: AugmentConfig | None) -> int:
    """One epoch in the calling thread."""
    loader = Loader(shards, SIZE, BATCH_SIZE, augment=augment, threads=0)
    return sum(len(batch) for batch in loader.batches(0))


def load_whole(shards: ShardSet) -> int:
    """One epoch without augmentation, every image decoded in its whole size."""
    with patch("yolo_dist.data.loader.reduction", lambda *_: 1):
        return load(shards, None)


def decoding_race(shards: ShardSet, keep: bool, rounds: int) -> Race:
    """Decoding whole and reduced, in a process of its own."""
    cv2.setNumThreads(1)
    if keep:
        keep_freed_memory()
    contestants = {WHOLE: lambda: load_whole(shards), REDUCED: lambda: load(shards, None)}
    return race(contestants, rounds, clock=time.process_time)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--source", type=Path, default=BCCD if BCCD.is_dir() else None, help="folder of JPEGs")
    parser.add_argument(
        "--large-source", type=Path, default=BDD if BDD.is_dir() else None, help="folder of JPEGs of 1280×720"
    )
    parser.add_argument("--rounds", type=int, default=7)
    arguments = parser.parse_args()
    cv2.setNumThreads(1)
    with tempfile.TemporaryDirectory() as folder:
        shards = shards_of(arguments.source, Path(folder) / "small", SceneSettings(images=300, seed=1))
        files = [bytes(sample.image) for sample in shards]
        scales = [plan_letterbox(sample.width, sample.height, SIZE).scale for sample in shards]
        sizes = [
            (round(one.width * scale), round(one.height * scale)) for one, scale in zip(shards, scales, strict=True)
        ]
        result = race(
            {
                LIMIT: lambda: bare(files, sizes),
                PLAIN: lambda: load(shards, None),
                LIGHT: lambda: load(shards, AugmentConfig(mosaic=0)),
                MOSAIC: lambda: load(shards, AugmentConfig()),
            },
            arguments.rounds,
            clock=time.process_time,
        )
        title = (
            f"{len(files)} JPEGs of {shards[0].width}×{shards[0].height} into {SIZE[0]}×{SIZE[1]}, one thread, CPU time"
        )
        scenes = SceneSettings(images=40, seed=1, width=LARGE[0], height=LARGE[1])
        large = shards_of(arguments.large_source, Path(folder) / "large", scenes)
        large_images = f"{len(large)} JPEGs of {large[0].width}×{large[0].height}"
        spawn = multiprocessing.get_context("spawn")
        decoding = {}
        for name, keep in ((AS_WORKERS, True), (BY_DEFAULT, False)):
            with spawn.Pool(1) as process:
                decoding[name] = process.apply(decoding_race, (large, keep, arguments.rounds))
    show(title, result, LIMIT, "images/s per core")
    for name, one in decoding.items():
        show(f"{large_images}, {name}", one, WHOLE, "images/s per core")
    ratios = {name: round(result.ratio(name, LIMIT), 3) for name in (PLAIN, LIGHT, MOSAIC)}
    what = "JPEGs in memory for the limit, Arrow shards for the loader; letterbox 416, batch 16, one thread, CPU time"
    path = publish_result(
        "loader",
        {
            "what": what,
            "images": title,
            "images_per_second": result.as_json(),
            "ratio_to_limit": ratios,
            "large_images": large_images,
            "large_images_per_second": {name: one.as_json() for name, one in decoding.items()},
            "ratio_of_reduced_to_whole_decoding": {
                name: round(one.ratio(REDUCED, WHOLE), 3) for name, one in decoding.items()
            },
        },
    )
    print(f"written to {path}")


if __name__ == "__main__":
    main()
