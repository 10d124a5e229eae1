"""Data in a real S3 server: converted to it, interrupted and resumed, read through the cache, and trained from."""

import json
import os
import signal
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from aiobotocore.client import AioBaseClient
from faulty_proxy import faulty_proxy
from made_datasets import good_yolo_dataset, yolo_card
from object_store_server import ObjectStore
from upath import UPath

from yolo_dist.data.card import SplitSource, find_card
from yolo_dist.data.conversion.convert import ConvertConfig, convert
from yolo_dist.data.loader import Loader
from yolo_dist.data.shards import ShardSet, open_split
from yolo_dist.errors import ConversionError, StorageError
from yolo_dist.pipeline import run
from yolo_dist.recipe import make_recipe
from yolo_dist.storage import publish

SMALL = ConvertConfig(shard_bytes=5000)
ONE_SHARD, TWO_SHARDS = ConvertConfig(overwrite=True), ConvertConfig(shard_bytes=25_000, overwrite=True)
WRITES = ("Abort", "Complete", "Copy", "Create", "Delete", "Put", "Upload")
"""How the requests begin that change what a server holds."""

pytestmark = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")


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


def files(place: str | Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in UPath(place, "train").iterdir()}


def killed_before(write: int, source: Path, url: str, config: ConvertConfig) -> bool:
    """Convert in a process that is killed before its n-th write to the server, between which nothing there changes.

    Returns:
        False if it ended before.
    """
    child = os.fork()
    if child:
        return os.WIFSIGNALED(os.waitpid(child, 0)[1])
    request, seen = AioBaseClient._make_api_call, 0

    async def counted(client: AioBaseClient, operation: str, parameters: dict[str, Any]) -> Any:
        nonlocal seen
        seen += operation.startswith(WRITES)
        if seen == write:
            os.kill(os.getpid(), signal.SIGKILL)
        return await request(client, operation, parameters)

    AioBaseClient._make_api_call = counted
    try:
        convert(yolo_card(), source, url, "train", config)
    finally:
        os._exit(0)


def test_a_conversion_killed_between_any_two_writes_goes_on(source: Path, tmp_path: Path, url: str) -> None:
    convert(yolo_card(), source, tmp_path / "expected", "train", TWO_SHARDS)
    once, write = TWO_SHARDS.model_copy(update={"overwrite": False}), 1
    while killed_before(write, source, f"{url}/{write}", once):
        with suppress(ConversionError):  # it is converted already
            convert(yolo_card(), source, f"{url}/{write}", "train", once)
        assert files(f"{url}/{write}") == files(tmp_path / "expected")
        write += 1
    assert files(f"{url}/{write}") == files(tmp_path / "expected")
    assert write - 1 == 7  # two shards, their records, the manifest, and the end of the records


def test_a_replacement_killed_between_any_two_writes_leaves_the_old_or_the_new_or_none(
    source: Path, tmp_path: Path, url: str
) -> None:
    """Two conversions replace each other by turns, one of which has more shards."""
    configs = (TWO_SHARDS, ONE_SHARD)
    for number, config in enumerate(configs):
        convert(yolo_card(), source, tmp_path / str(number), "train", config)
    expected = [files(tmp_path / str(number)) for number in range(2)]
    convert(yolo_card(), source, url, "train", configs[0])
    write = 1
    while killed_before(write, source, url, configs[write % 2]):
        found = files(url)
        assert "manifest.json" not in found or any(found.items() >= whole.items() for whole in expected)
        convert(yolo_card(), source, url, "train", configs[write % 2])
        assert files(url) == expected[write % 2]
        write += 1
    assert files(url) == expected[write % 2]
    assert write - 1 >= 6  # the ends of manifest, record and a shard of before, and a new one of each


def test_tasks_on_ray_write_to_the_server(
    source: Path, local: ShardSet, url: str, cache: Path, ray_session: None
) -> None:
    assert convert(yolo_card(), source, url, "train", ConvertConfig(shard_bytes=5000, workers=2)) == local.manifest


def test_a_split_that_another_client_converts_is_seen_at_once(source: Path, url: str, cache: Path) -> None:
    split = SplitSource(images="images", annotations="labels")
    card = yolo_card(splits={"train": split, "val": split})
    convert(card, source, url, "train")
    assert len(open_split(url, "train")) == 60
    convert(card, source, UPath(url, skip_instance_cache=True), "val")
    assert len(open_split(url, "val")) == 60


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


def test_an_upload_that_is_not_taken_is_begun_again(
    s3: ObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = bytes(16 << 20)  # more than the two ends of a connection keep between them
    monkeypatch.setenv("YOLO_DIST_STORE_TIMEOUT", "1")
    with faulty_proxy(s3.endpoint) as proxy:
        proxy.method = "PUT"
        proxy.faults.append("silent")
        path = UPath(f"{s3.url}/{tmp_path.name}/shard.arrow", endpoint_url=proxy.endpoint)
        publish(path, content)
        assert not proxy.faults
        assert path.read_bytes() == content


def test_a_conversion_to_a_store_that_stalls_for_good_ends_with_a_line(
    s3: ObjectStore, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("YOLO_DIST_STORE_TIMEOUT", "0.2")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    with faulty_proxy(s3.endpoint) as proxy:
        proxy.ends, proxy.method = "shard-00000.json", "HEAD"
        proxy.faults.extend(["silent"] * 200)
        url = UPath(f"{s3.url}/{tmp_path.name}", endpoint_url=proxy.endpoint)
        with pytest.raises(StorageError, match=rf"^{url}/train/shard-00000.json: cannot be used: the store stalls"):
            convert(yolo_card(), source, url, "train", SMALL)


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
