"""Data in a real S3 server: converted to it, interrupted and resumed, read through the cache, and trained from."""

import json
import multiprocessing
import os
import signal
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from faulty_proxy import faulty_proxy
from made_datasets import good_yolo_dataset, yolo_card
from object_store_server import ObjectStore
from upath import UPath

from yolo_dist.data.card import find_card
from yolo_dist.data.conversion.convert import ConvertConfig, convert
from yolo_dist.data.loader import Loader
from yolo_dist.data.shards import ShardSet, open_split
from yolo_dist.errors import StorageError
from yolo_dist.pipeline import run
from yolo_dist.recipe import make_recipe

SMALL = ConvertConfig(shard_bytes=5000)


@pytest.fixture
def url(s3: ObjectStore, tmp_path: Path) -> str:
    return f"{s3.url}/{tmp_path.name}"


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache."""
    monkeypatch.setenv("YOLO_DIST_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return good_yolo_dataset(tmp_path / "in", 60)


@pytest.fixture
def local(source: Path, tmp_path: Path) -> ShardSet:
    convert(yolo_card(), source, tmp_path / "local", "train", SMALL)
    return open_split(tmp_path / "local", "train")


def test_a_conversion_to_the_server_has_the_bytes_of_one_to_a_disk(
    source: Path, local: ShardSet, url: str, cache: Path
) -> None:
    manifest = convert(yolo_card(), source, url, "train", SMALL)
    assert manifest == local.manifest
    assert sorted(path.name for path in UPath(url, "train").iterdir()) == sorted(
        path.name for path in local.folder.iterdir()
    )
    remote = open_split(url, "train")
    assert [bytes(sample.image) for sample in remote] == [bytes(sample.image) for sample in local]
    assert len(list(cache.glob("*.arrow"))) == len(manifest.shards)
    remote.verify()


def convert_and_die(source: Path, url: str, shards: int) -> None:
    """Convert in this process until some shards are written, and be killed."""
    written = []

    def kill(done: int, total: int) -> None:
        written.append(done)
        if len(written) > shards:
            os.kill(os.getpid(), signal.SIGKILL)

    convert(yolo_card(), source, url, "train", SMALL, kill)


@pytest.mark.parametrize("shards", [0, 4])
def test_a_conversion_that_is_killed_goes_on(source: Path, local: ShardSet, url: str, cache: Path, shards: int) -> None:
    child = multiprocessing.get_context("spawn").Process(target=convert_and_die, args=(source, url, shards))
    child.start()
    child.join()
    assert child.exitcode == -signal.SIGKILL
    assert not UPath(url, "train", "manifest.json").exists()
    assert convert(yolo_card(), source, url, "train", SMALL) == local.manifest
    assert [bytes(sample.image) for sample in open_split(url, "train")] == [bytes(one.image) for one in local]


def test_tasks_on_ray_write_to_the_server(
    source: Path, local: ShardSet, url: str, cache: Path, ray_session: None
) -> None:
    assert convert(yolo_card(), source, url, "train", ConvertConfig(shard_bytes=5000, workers=2)) == local.manifest


def test_a_server_that_fails_while_uploading_is_asked_again(
    s3: ObjectStore, source: Path, local: ShardSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with faulty_proxy(s3.endpoint) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.endpoint)
        monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
        proxy.method = "PUT"
        proxy.faults.extend(["503", "500", "reset"])
        url = UPath(f"{s3.url}/{tmp_path.name}", endpoint_url=proxy.endpoint)
        assert convert(yolo_card(), source, url, "train", SMALL) == local.manifest
        assert not proxy.faults


def test_wrong_keys_are_refused_with_the_url(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    with pytest.raises(StorageError, match=rf"^{url}: cannot be used: .*AWS_SECRET_ACCESS_KEY"):
        open_split(UPath(url, endpoint_url=os.environ["AWS_ENDPOINT_URL"], use_listings_cache=False), "train")


@pytest.fixture
def counted(s3: ObjectStore, source: Path, url: str, cache: Path) -> Iterator[tuple[ShardSet, list[str]]]:
    """Converted shards behind a proxy, and what is asked of it."""
    convert(yolo_card(), source, url, "train", SMALL)
    with faulty_proxy(s3.endpoint) as proxy:
        shards = ShardSet.open(UPath(f"{url}/train", endpoint_url=proxy.endpoint))
        yield shards, proxy.requests


def test_batches_from_the_server_are_those_from_a_disk_and_each_shard_comes_once(
    counted: tuple[ShardSet, list[str]], local: ShardSet, cache: Path
) -> None:
    remote, requests = counted
    for epoch in range(2):
        here, there = (list(Loader(shards, (64, 64), 4, seed=3).batches(epoch)) for shards in (local, remote))
        assert [batch.image_ids for batch in here] == [batch.image_ids for batch in there]
        assert all(bool((one.images == other.images).all()) for one, other in zip(here, there, strict=True))
    asked = [path for path in requests if path.endswith(".arrow")]
    assert set(map(asked.count, asked)) <= {1, 2}  # s3fs asks for a file's size, then for its bytes
    assert len(set(asked)) == len(local.manifest.shards)


def test_shards_are_brought_before_they_are_needed(counted: tuple[ShardSet, list[str]], cache: Path) -> None:
    remote, _ = counted
    batches = Loader(remote, (64, 64), 4, threads=0).batches(0)
    next(batches)
    with remote.prefetching() as prefetch:
        prefetch(range(len(remote.manifest.shards)))
    batches.close()  # type: ignore[attr-defined]
    assert len(list(cache.glob("*.arrow"))) >= 2
    assert not list(cache.glob("*.part"))


def bytes_of_shards(cache: Path) -> int:
    """Whole and half shards; the prefetcher moves them meanwhile."""
    total = 0
    for path in cache.iterdir():
        with suppress(FileNotFoundError):
            total += path.stat().st_size if path.suffix in (".arrow", ".part") else 0
    return total


def test_a_cache_smaller_than_the_dataset_never_exceeds_its_size(
    counted: tuple[ShardSet, list[str]], cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    remote, _ = counted
    room = 3 * max(shard.bytes for shard in remote.manifest.shards)
    monkeypatch.setenv("YOLO_DIST_CACHE_GIB", str(room / 2**30))
    small = ShardSet(remote.folder, remote.manifest)
    most = 0
    for batch in Loader(small, (64, 64), 4).batches(0):
        assert len(batch)
        most = max(most, bytes_of_shards(cache))
    assert 0 < most <= room


@pytest.mark.filterwarnings("ignore::DeprecationWarning:ray.data")
def test_two_workers_train_on_visdrone_from_the_server(
    shared_data: Path, url: str, tmp_path: Path, ray_session: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The whole run lives in the object store: data, checkpoints, bundles and report."""
    card = find_card("visdrone")
    source = shared_data / "visdrone"
    (split,) = [name for name in card.splits if (source / card.splits[name].images).is_dir()]
    convert(card, source, f"{url}/visdrone", split)
    values = {
        "name": "visdrone",
        "dataset": "visdrone",
        "shards": f"{url}/visdrone",
        "train_split": split,
        "validation_split": split,
        "model": {"zoo": "yolov3-tiny", "width": 0.125},
        "image_size": 128,
        "stages": [{"id": "base", "kind": "train", "epochs": 1, "batch_size": 8}],
        "object_store": {"endpoint": os.environ["AWS_ENDPOINT_URL"], "region": os.environ["AWS_REGION"]},
        "cluster": {"workers": 2},
        "storage": f"{url}/runs",
    }
    (result,) = run(make_recipe(values, "test"))
    assert result.map is not None
    (row,) = json.loads(UPath(url, "runs", "visdrone", "results.json").read_text())
    assert row["id"] == "base"
    assert UPath(url, "runs", "visdrone", "report.html").exists()
