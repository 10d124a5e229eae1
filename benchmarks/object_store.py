"""Training from an S3 server with an empty cache: the wait for the first batch, and the second epoch beside a disk.

The server runs on this machine (SeaweedFS), so its speed is that of its processes, not of a network.

Run: python benchmarks/object_store.py [--source FOLDER]
"""

import argparse
import os
import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path

from convert import CARD, DATA, jpegs, make_dataset
from measure import publish_result, race, show

from yolo_dist.data.cache import FOLDER_VARIABLE
from yolo_dist.data.conversion.convert import ConvertConfig, convert
from yolo_dist.data.loader import Loader
from yolo_dist.data.shards import ShardSet, open_split

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
from object_store_server import object_store

SIZE, BATCH_SIZE = (416, 416), 16
LOCAL, REMOTE = "from a disk", "from the server, cached"


def cold(url: str, cache: Path) -> ShardSet:
    """The shards of the server, none of which is on this machine."""
    shutil.rmtree(cache, ignore_errors=True)
    return open_split(url, "train")


def seconds_to_first_batch(shards: ShardSet) -> float:
    batches = Loader(shards, SIZE, BATCH_SIZE).batches(0)
    start = time.perf_counter()
    next(batches)
    seconds = time.perf_counter() - start
    batches.close()  # type: ignore[attr-defined]
    return seconds


def seconds_to_download_one(shards: ShardSet) -> float:
    start = time.perf_counter()
    shards[0]
    return time.perf_counter() - start


def epoch(shards: ShardSet) -> int:
    return sum(len(batch) for batch in Loader(shards, SIZE, BATCH_SIZE).batches(1))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--source", type=Path, default=DATA, help="folder of JPEGs, repeated under new names")
    parser.add_argument("--images", type=int, default=4000)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        make_dataset(root / "in", jpegs(arguments.source), arguments.images)
        os.environ[FOLDER_VARIABLE] = str(root / "cache")
        convert(CARD, root / "in", root / "local", "train", ConvertConfig())
        (root / "server").mkdir()
        with object_store(root / "server") as store:
            os.environ |= store.environment()
            url = f"{store.url}/benchmark"
            convert(CARD, root / "in", url, "train", ConvertConfig())
            one, first = [], []
            for _ in range(arguments.rounds):
                one.append(seconds_to_download_one(cold(url, root / "cache")))
                first.append(seconds_to_first_batch(cold(url, root / "cache")))
            local, remote = open_split(root / "local", "train"), cold(url, root / "cache")
            epoch(remote)
            found = race({LOCAL: lambda: epoch(local), REMOTE: lambda: epoch(remote)}, arguments.rounds)
    shards = len(remote.manifest.shards)
    waits = statistics.median(wait / download for wait, download in zip(first, one, strict=True))
    print(f"{arguments.images} images in {shards} shards: one shard takes {statistics.median(one):.3f} s")
    print(f"first batch after {statistics.median(first):.3f} s, {waits:.2f} times as long")
    show("second epoch", found, LOCAL, "images/s")
    path = publish_result(
        "object_store",
        {
            "command": "python benchmarks/object_store.py",
            "images": arguments.images,
            "shards": shards,
            "seconds_for_one_shard": round(statistics.median(one), 3),
            "first_batch_in_shard_downloads": round(waits, 2),
            "second_epoch_to_local": round(found.ratio(REMOTE, LOCAL), 3),
            "images_per_second": found.as_json(),
        },
    )
    print(f"written: {path}")


if __name__ == "__main__":
    main()
