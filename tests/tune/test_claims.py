"""Claims: one has the work, the others wait, and the next takes over from one that died."""

import json
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from object_store_server import ObjectStore
from upath import UPath

from yolo_dist.storage import create, location, publish
from yolo_dist.tune.claims import Claims


class Hands:
    """A clock that moves when somebody waits."""

    def __init__(self) -> None:
        self.time = 0.0

    def clock(self) -> float:
        return self.time

    def wait(self, seconds: float) -> None:
        self.time += seconds


@pytest.fixture(params=["local", "s3"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[UPath]:
    """On a disk, and in an object store that knows conditional writes."""
    if request.param == "local":
        yield location(tmp_path / "claims")
        return
    store: ObjectStore = request.getfixturevalue("s3")
    yield location(f"{store.url}/{tmp_path.name}")


def test_of_many_who_create_a_file_at_once_one_does(folder: UPath) -> None:
    with ThreadPoolExecutor(4) as threads:
        made = list(threads.map(lambda number: create(folder / "one", str(number)), range(12)))
    assert made.count(True) == 1
    assert (folder / "one").read_text() == str(made.index(True))


def test_work_is_had_by_one_at_a_time(folder: UPath) -> None:
    claims = Claims(folder)
    assert claims.attempt("base") is not None
    assert claims.attempt("base") is None
    assert claims.attempt("sparse") is not None


def test_who_lets_go_leaves_the_work_to_the_next_at_once(folder: UPath) -> None:
    claims = Claims(folder)
    with claims.held("base", lambda: False) as ours:
        assert ours
        assert claims.attempt("base") is None
    assert claims.attempt("base") is not None


def test_a_claim_dies_with_its_owner(folder: UPath) -> None:
    hands = Hands()
    dead = Claims(folder).attempt("base")
    assert dead is not None
    waiting = Claims(folder, lost_seconds=30, clock=hands.clock, wait=hands.wait)
    with waiting.held("base", lambda: False) as ours:
        assert ours
    assert hands.time >= 30


def test_an_owner_that_gives_signs_of_life_keeps_its_claim(folder: UPath) -> None:
    hands = Hands()
    claim = Claims(folder).attempt("base")
    assert claim is not None
    owner = json.loads(claim.read_text())
    waiting = Claims(folder, lost_seconds=30, clock=hands.clock)
    for beat in range(5):
        publish(claim, json.dumps(owner | {"beat": beat}))
        assert waiting.attempt("base") is None
        hands.time += 29
    publish(claim, json.dumps(owner | {"beat": 5}))
    assert waiting.attempt("base") is None
    hands.time += 31
    assert waiting.attempt("base") is not None


def test_of_several_who_take_over_one_does(folder: UPath) -> None:
    assert Claims(folder).attempt("base") is not None
    waiting = [Claims(folder, lost_seconds=0) for _ in range(3)]
    for claims in waiting:
        claims.attempt("base")  # each sees its state for the first time
    with ThreadPoolExecutor(3) as threads:
        taken = list(threads.map(lambda claims: claims.attempt("base"), waiting))
    assert sum(claim is not None for claim in taken) == 1


def test_those_who_wait_take_what_the_owner_made(tmp_path: Path) -> None:
    claims, made, begun = Claims(location(tmp_path), beat_seconds=0.02), threading.Event(), threading.Event()

    def take() -> bool:
        begun.wait()
        with Claims(location(tmp_path), beat_seconds=0.02).held("base", made.is_set) as ours:
            return ours

    with ThreadPoolExecutor(2) as threads:
        others = [threads.submit(take) for _ in range(2)]
        with claims.held("base", made.is_set) as ours:
            begun.set()
            assert ours
            made.set()
        assert [other.result() for other in others] == [False, False]


def test_an_owner_beats_as_long_as_it_works(tmp_path: Path) -> None:
    claims = Claims(location(tmp_path), beat_seconds=0.01)
    with claims.held("base", lambda: False):
        claim = tmp_path / "base.1"
        until = time.monotonic() + 10
        while json.loads(claim.read_text())["beat"] < 3:
            assert time.monotonic() < until
    assert claim.read_text() == "released"


def test_work_that_fails_is_let_go(tmp_path: Path) -> None:
    claims = Claims(location(tmp_path))
    with pytest.raises(ZeroDivisionError), claims.held("base", lambda: False):
        raise ZeroDivisionError
    assert claims.attempt("base") is not None
