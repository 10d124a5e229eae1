"""What a conversion costs beside copying the same files, and how its memory grows with their number: by its index.

Files are warm, everything runs in one thread of one process, and the processor's time counts: it is the same for a
busy machine and a quiet one, and includes the kernel's part of reading and writing.

Run: python benchmarks/convert.py [--source FOLDER] [--images 4000]
"""

import argparse
import json
import multiprocessing
import shutil
import tempfile
import time
from itertools import cycle, islice
from pathlib import Path

import cv2
import numpy as np
from measure import peak_memory, publish_result, race, show

from yolo_dist.data.card import Card, SplitSource
from yolo_dist.data.conversion.convert import ConvertConfig, convert

DATA = Path(__file__).resolve().parents[2] / "shared" / "data" / "coco" / "val2017"
COPY, CONVERT = "copy", "convert"
CARD = Card(
    name="jpegs",
    format="coco_json",
    classes=("thing",),
    splits={"train": SplitSource(images="images", annotations="instances.json")},
)


def make_dataset(root: Path, originals: list[Path], count: int) -> int:
    """`count` JPEGs under new names with three boxes each, as a COCO dataset; returns their bytes."""
    (root / "images").mkdir(parents=True)
    total = 0
    for number, original in enumerate(islice(cycle(originals), count)):
        copied = shutil.copyfile(original, root / "images" / f"{number:012d}.jpg")
        total += copied.stat().st_size
    boxes = [
        {"id": 3 * number + box, "image_id": number, "category_id": 1, "bbox": [5, 5, 20 + box, 20], "iscrowd": 0}
        for number in range(count)
        for box in range(3)
    ]
    images = [{"id": number, "file_name": f"{number:012d}.jpg"} for number in range(count)]
    content = {"images": images, "annotations": boxes, "categories": [{"id": 1, "name": "thing"}]}
    (root / "instances.json").write_text(json.dumps(content))
    return total


def copy(source: Path, target: Path) -> None:
    """All files of a folder, one by one."""
    shutil.copytree(source, target, copy_function=shutil.copyfile)


def peak_of_conversion(source: Path, target: Path) -> int:
    """Bytes of the largest memory that a fresh process had while it converted."""
    context = multiprocessing.get_context("spawn")
    with context.Pool(1) as pool:
        return pool.apply(_convert_and_measure, (source, target))


def _convert_and_measure(source: Path, target: Path) -> int:
    convert(CARD, source, target, "train", ConvertConfig(overwrite=True))
    return peak_memory()


def jpegs(folder: Path) -> list[Path]:
    return [path for path in sorted(folder.rglob("*")) if path.suffix.lower() in (".jpg", ".jpeg")]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--source", type=Path, default=DATA, help="folder of JPEGs, repeated under new names")
    parser.add_argument("--images", type=int, default=4000)
    parser.add_argument("--many", type=int, default=100_000, help="small pictures, for the memory of a large dataset")
    parser.add_argument("--rounds", type=int, default=7)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        originals = jpegs(arguments.source)
        total = make_dataset(root / "all", originals, arguments.images)
        make_dataset(root / "some", originals, arguments.images // 8)

        def copying() -> int:
            shutil.rmtree(root / "copy", ignore_errors=True)
            copy(root / "all", root / "copy")
            return total

        def converting() -> int:
            shutil.rmtree(root / "shards", ignore_errors=True)
            convert(CARD, root / "all", root / "shards", "train")
            return total

        found = race({COPY: copying, CONVERT: converting}, arguments.rounds, clock=time.process_time)
        small = root / "small.jpg"
        small.write_bytes(cv2.imencode(".jpg", np.full((64, 64, 3), 120, np.uint8))[1].tobytes())
        make_dataset(root / "few small", [small], arguments.many // 8)
        make_dataset(root / "many small", [small], arguments.many)
        peaks = {
            name: peak_of_conversion(root / name, root / "peak") for name in ("some", "all", "few small", "many small")
        }
    show(f"{arguments.images} JPEGs, {total / 2**20:.0f} MiB", found, COPY, "bytes/s")
    mebibytes = {name: round(peak / 2**20, 1) for name, peak in peaks.items()}
    index = (peaks["many small"] - peaks["few small"]) / (arguments.many - arguments.many // 8)
    print(f"peak memory in MiB: {mebibytes}; {index:,.0f} bytes more for each further image")
    path = publish_result(
        "convert",
        {
            "command": "python benchmarks/convert.py",
            "images": arguments.images,
            "bytes": total,
            "ratio_to_copying": round(found.ratio(CONVERT, COPY), 3),
            "bytes_per_second": found.as_json(),
            "peak_mebibytes": {
                str(arguments.images // 8): mebibytes["some"],
                str(arguments.images): mebibytes["all"],
                f"{arguments.many // 8} small": mebibytes["few small"],
                f"{arguments.many} small": mebibytes["many small"],
            },
            "bytes_for_each_further_image": round(index),
        },
    )
    print(f"written: {path}")


if __name__ == "__main__":
    main()
