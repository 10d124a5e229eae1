"""The benchmark of scale counts the downloads that the real cache makes."""

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from upath import UPath

from yolo_dist.data.cache import ShardCache
from yolo_dist.data.manifest import Manifest

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
IMAGES, SHARDS, SIZE, NODES = 640, 64, 100, 4


@pytest.fixture(autouse=True)
def benchmarks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))


@pytest.fixture
def store(tmp_path: Path) -> Iterator[UPath]:
    folder = UPath(f"memory://{tmp_path.name}")
    yield folder
    folder.fs.rm(folder.path, recursive=True)


def filled(store: UPath) -> Manifest:
    """A split whose shards are a hundred bytes each."""
    import scale_reading

    manifest = scale_reading.manifest_of(IMAGES, SHARDS, SIZE)
    records = []
    for number, record in enumerate(manifest.shards):
        content = bytes([number]) * SIZE
        (store / record.file).write_bytes(content)
        records.append(record.model_copy(update={"sha256": hashlib.sha256(content).hexdigest()}))
    return manifest.model_copy(update={"shards": tuple(records)})


@pytest.mark.parametrize("room", [8, 40, 64])
def test_as_many_shards_are_counted_as_the_cache_downloads(
    store: UPath, tmp_path: Path, room: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    import scale_reading

    fetched: list[str] = []
    fetch = ShardCache._fetch

    def counted_fetch(cache: ShardCache, remote: UPath, *rest: Any) -> None:
        fetched.append(remote.name)
        fetch(cache, remote, *rest)

    monkeypatch.setattr(ShardCache, "_fetch", counted_fetch)
    manifest = filled(store)
    real = scale_reading.ShardsWithoutFiles(manifest, ShardCache(tmp_path / "cache", room * SIZE), store)
    counting = scale_reading.CountingCache(room * SIZE)
    counted = scale_reading.ShardsWithoutFiles(manifest, counting)
    for epoch in range(3):
        steps = list(scale_reading.steps_of(manifest, NODES, epoch))
        scale_reading.replay(steps, real)
        scale_reading.replay(steps, counted)
        assert counting.downloads == len(fetched)
    assert len(fetched) == SHARDS if room == SHARDS else len(fetched) > SHARDS


def test_a_node_reads_what_the_loader_of_its_worker_reads() -> None:
    import scale_reading

    manifest = scale_reading.manifest_of(IMAGES, SHARDS)
    steps = list(scale_reading.steps_of(manifest, 1, epoch=0))
    assert len(steps) == IMAGES // scale_reading.IMAGES_A_WORKER
    assert {number for step in steps for number in step.read} == set(range(SHARDS))


def test_a_ring_of_many_sends_all_bytes_twice() -> None:
    import scale_network

    assert scale_network.ring_seconds(100, nodes=2, bytes_per_second=50, latency=0) == 2
    assert scale_network.ring_seconds(100, nodes=1000, bytes_per_second=50, latency=0) == pytest.approx(4, rel=0.01)
    assert scale_network.ring_seconds(0, nodes=11, bytes_per_second=50, latency=0.5, messages=2) == 20
