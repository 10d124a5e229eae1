"""The shard cache: bounded, shared, and never trusted without a check."""

import errno
import hashlib
import multiprocessing
import os
import shutil
import signal
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from faulty_proxy import FAULTS, STALLS, FaultyProxy, faulty_proxy
from object_store_server import ObjectStore
from upath import UPath

from yolo_dist.data.cache import ShardCache
from yolo_dist.data.manifest import ShardRecord
from yolo_dist.errors import ShardCorrupt, StorageError

SIZE = 1000
FILE_EVENTS = ("open", "os.rename", "os.remove", "os.mkdir")

pytestmark = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")


def content(number: int) -> bytes:
    return bytes([number]) * SIZE


def record(number: int) -> ShardRecord:
    digest = hashlib.sha256(content(number)).hexdigest()
    return ShardRecord(file=f"shard-{number:05d}.arrow", rows=1, bytes=SIZE, sha256=digest)


def fill(folder: UPath) -> UPath:
    """Ten shards."""
    for number in range(10):
        (folder / record(number).file).write_bytes(content(number))
    return folder


@pytest.fixture
def store(tmp_path: Path) -> Iterator[UPath]:
    folder = fill(UPath(f"memory://{tmp_path.name}"))
    yield folder
    folder.fs.rm(folder.path, recursive=True)


@pytest.fixture
def cache(tmp_path: Path) -> ShardCache:
    """Room for three shards."""
    return ShardCache(tmp_path / "cache", 3 * SIZE)


def get(cache: ShardCache, store: UPath, number: int) -> bytes:
    return cache.get(store / record(number).file, record(number)).path.read_bytes()


def held(cache: ShardCache) -> list[int]:
    return [number for number in range(10) if cache.has(record(number))]


def test_a_shard_is_downloaded_once(cache: ShardCache, store: UPath) -> None:
    assert get(cache, store, 1) == content(1)
    (store / record(1).file).unlink()
    assert get(cache, store, 1) == content(1)
    assert get(ShardCache(cache.folder, cache.limit), store, 1) == content(1)
    assert [path.name for path in cache.folder.iterdir()] == [f"{record(1).sha256}.arrow"]


def test_the_least_recently_used_go_first(cache: ShardCache, store: UPath) -> None:
    for number in (0, 1, 2, 0, 3):
        get(cache, store, number)
    assert held(cache) == [0, 2, 3]
    assert cache.used() == 3 * SIZE


def test_a_shard_in_use_stays(cache: ShardCache, store: UPath) -> None:
    kept = cache.get(store / record(0).file, record(0))
    for number in range(1, 8):
        get(cache, store, number)
    assert held(cache) == [0, 6, 7]
    assert kept.path.read_bytes() == content(0)
    del kept
    get(cache, store, 8)
    assert held(cache) == [6, 7, 8]


def test_who_holds_all_the_room_is_asked_to_give_some_up(cache: ShardCache, store: UPath) -> None:
    holding = [cache.get(store / record(number).file, record(number)) for number in range(3)]
    with pytest.raises(StorageError, match=r"no room for 1,000 more bytes: YOLO_DIST_CACHE_GIB is .* in use"):
        get(cache, store, 3)
    assert cache.get(store / record(3).file, record(3), lambda: bool(holding) and bool(holding.pop(0)))
    assert held(cache) == [1, 2, 3]


def test_other_files_in_the_folder_are_never_touched(cache: ShardCache, store: UPath) -> None:
    cache.folder.mkdir()
    (cache.folder / "only-copy.arrow").write_bytes(bytes(10 * SIZE))
    for number in range(5):
        get(cache, store, number)
    assert (cache.folder / "only-copy.arrow").stat().st_size == 10 * SIZE
    assert held(cache) == [2, 3, 4]


@pytest.mark.parametrize("damage", [b"", content(1)[:-1], content(2)])
def test_a_damaged_file_is_not_trusted_at_the_next_start(cache: ShardCache, store: UPath, damage: bytes) -> None:
    get(cache, store, 1)
    (cache.folder / f"{record(1).sha256}.arrow").write_bytes(damage)
    assert get(ShardCache(cache.folder, cache.limit), store, 1) == content(1)


def test_a_wrong_shard_in_the_store_is_named_with_its_url_and_not_kept(cache: ShardCache, store: UPath) -> None:
    (store / record(1).file).write_bytes(content(2))
    with pytest.raises(ShardCorrupt, match=rf"^{store}/shard-00001\.arrow: sha256 is another, fetched 2 times"):
        get(cache, store, 1)
    assert list(cache.folder.iterdir()) == []


def test_a_full_disk_costs_older_shards_and_then_says_so(
    cache: ShardCache, store: UPath, monkeypatch: pytest.MonkeyPatch
) -> None:
    def download(source: str, target: str) -> None:
        if len(held(cache)) > room:
            Path(target).write_bytes(content(0)[:300])
            raise OSError(errno.ENOSPC, "No space left on device")
        Path(target).write_bytes(store.fs.cat_file(source))

    room = 1
    monkeypatch.setattr(store.fs, "get_file", download)
    for number in (0, 1, 2):
        assert get(cache, store, number) == content(number)
    assert held(cache) == [1, 2]
    room = -1
    with pytest.raises(StorageError, match=rf"^{cache.folder}: the disk is full; set YOLO_DIST_CACHE to"):
        get(cache, store, 3)
    assert list(cache.folder.iterdir()) == []


def test_waiting_for_a_download_does_not_wait_for_those_who_then_read_it(
    cache: ShardCache, store: UPath, monkeypatch: pytest.MonkeyPatch
) -> None:
    original, waiting = store.fs.get_file, threading.Barrier(2)

    def slow(source: str, target: str) -> None:
        waiting.wait(timeout=10)
        original(source, target)

    monkeypatch.setattr(store.fs, "get_file", slow)
    with ThreadPoolExecutor(2) as pool:
        both = [pool.submit(cache.get, store / record(1).file, record(1)) for _ in range(2)]
        waiting.wait(timeout=10)
        first, second = (one.result(timeout=10) for one in both)
    assert first.path == second.path


def test_threads_that_want_the_same_shard_fetch_it_once(
    cache: ShardCache, store: UPath, monkeypatch: pytest.MonkeyPatch
) -> None:
    fetched: list[str] = []
    original = store.fs.get_file

    def counted(source: str, target: str) -> None:
        fetched.append(source)
        original(source, target)

    monkeypatch.setattr(store.fs, "get_file", counted)
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: get(cache, store, 1), range(32)))
    assert found == [content(1)] * 32
    assert len(fetched) == 1


def killed_at(event: int, cache: ShardCache, store: UPath) -> bool:
    """Fill the cache in a process that is killed at its n-th action on a file; False if it ended before."""
    child = os.fork()
    if child:
        return os.WIFSIGNALED(os.waitpid(child, 0)[1])
    seen = 0

    def kill(name: str, arguments: tuple[Any, ...]) -> None:
        nonlocal seen
        if name in FILE_EVENTS and str(cache.folder) in str(arguments):
            seen += 1
            if seen == event:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(kill)
    try:
        for number in range(5):
            get(cache, store, number)
    finally:
        os._exit(0)


def test_killed_at_any_step_of_filling_the_next_one_goes_on(cache: ShardCache, store: UPath) -> None:
    event = 1
    while killed_at(event, cache, store):
        for number in range(5):
            assert get(cache, store, number) == content(number)
        assert sorted(path.suffix for path in cache.folder.iterdir()) == [".arrow"] * 3
        shutil.rmtree(cache.folder)
        event += 1
    assert event > 20


@pytest.fixture
def proxy(s3: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultyProxy]:
    """What stands before the server in this test."""
    with faulty_proxy(s3.endpoint) as faulty:
        monkeypatch.setenv("AWS_ENDPOINT_URL", faulty.endpoint)
        monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")  # botocore's own come on top
        yield faulty


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stores that are not reached yet are given up after half a second of silence."""
    monkeypatch.setenv("YOLO_DIST_STORE_TIMEOUT", "0.5")


@pytest.fixture
def bucket(s3: ObjectStore, proxy: FaultyProxy, tmp_path: Path) -> UPath:
    """Shards in the bucket, reached through the proxy."""
    return fill(UPath(f"{s3.url}/{tmp_path.name}", endpoint_url=proxy.endpoint))


@pytest.mark.parametrize("fault", [*FAULTS, *STALLS])
@pytest.mark.usefixtures("impatient")
def test_a_store_that_fails_for_a_while_is_asked_again(
    fault: str, cache: ShardCache, bucket: UPath, proxy: FaultyProxy
) -> None:
    proxy.faults.extend([fault] if fault == "flipped" else [fault, fault])
    for number in range(3):
        assert get(cache, bucket, number) == content(number)
    assert not proxy.faults
    assert {path.suffix for path in cache.folder.iterdir()} == {".arrow"}


@pytest.mark.parametrize("fault", ["503", "flipped"])
def test_a_store_that_goes_on_failing_is_given_up_by_name(
    fault: str, cache: ShardCache, bucket: UPath, proxy: FaultyProxy
) -> None:
    proxy.faults.extend([fault] * 200)
    with pytest.raises(StorageError, match=rf"^{bucket}/shard-00000\.arrow: cannot be used"):
        get(cache, bucket, 0)
    assert list(cache.folder.iterdir()) == []


@pytest.mark.parametrize("fault", STALLS)
@pytest.mark.usefixtures("impatient")
def test_a_store_that_stalls_for_good_is_given_up_after_five_tries(
    fault: str, cache: ShardCache, bucket: UPath, proxy: FaultyProxy
) -> None:
    proxy.faults.extend([fault] * 200)
    with pytest.raises(StorageError, match=rf"^{bucket}/shard-00000\.arrow: cannot be used: the store stalls") as told:
        get(cache, bucket, 0)
    assert len(proxy.faults) == 195
    assert "\n" not in str(told.value)
    assert list(cache.folder.iterdir()) == []


def fill_and_compare(url: str, endpoint: str, cache: ShardCache) -> None:
    store = UPath(url, endpoint_url=endpoint)
    assert [get(cache, store, number) for number in range(10)] == [content(number) for number in range(10)]


def test_two_processes_fill_one_cache_without_fetching_anything_twice(
    bucket: UPath, proxy: FaultyProxy, tmp_path: Path
) -> None:
    before, cache = len(proxy.requests), ShardCache(tmp_path / "cache", 20 * SIZE)
    spawn = multiprocessing.get_context("spawn")
    processes = [spawn.Process(target=fill_and_compare, args=(str(bucket), proxy.endpoint, cache)) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0]
    asked = [path for path in proxy.requests[before:] if path.endswith(".arrow")]
    fetched = {path: asked.count(path) for path in asked}
    assert len(fetched) == 10
    assert max(fetched.values()) <= 2  # s3fs asks for a file's size, then for its bytes
