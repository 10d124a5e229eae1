"""One process at a time writes a folder: on disks and object stores, with dead and living holders."""

import json
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
from object_store_server import ObjectStore
from upath import UPath

from yolo_dist import lease
from yolo_dist.errors import RunHeld
from yolo_dist.lease import Holder, Lease, hold, hold_unless_done, last_sign, read_holder
from yolo_dist.storage import location, publish


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, seconds in (("SECONDS_BETWEEN_SIGNS", 0.05), ("SECONDS_BETWEEN_LOOKS", 0.02), ("DEAD_AFTER", 0.6)):
        monkeypatch.setattr(lease, name, seconds)


@pytest.fixture(params=["disk", "object store"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> UPath:
    if request.param == "disk":
        return location(tmp_path / "runs" / "bccd")
    store: ObjectStore = request.getfixturevalue("s3")
    return location(f"{store.url}/{tmp_path.name}/bccd")


def elsewhere(folder: UPath, number: int = 1) -> Holder:
    """A holder on another machine, of which nothing is known but its file."""
    holder = Holder(host="other-machine", user="ann", process=7, since="2026-11-24 10:00:00 +0000", job="raysubmit_1")
    publish(folder / f"lease-{number}.json", holder.model_dump_json())
    return holder


def test_the_last_sign_of_life_is_known_also_of_who_is_gone(folder: UPath) -> None:
    assert last_sign(folder) is None
    before = time.time() - 1  # object stores know whole seconds
    with hold(folder, print):
        living = last_sign(folder)
        assert living is not None
        assert before <= living <= time.time()
    gone = last_sign(folder)
    assert gone is not None
    assert living <= gone <= time.time()


def test_a_folder_that_nobody_holds_is_held_and_let_go(folder: UPath) -> None:
    assert read_holder(folder) is None
    with hold(folder, print) as mine:
        mine.require()
        holder = read_holder(folder)
        assert holder is not None
        assert holder.known_alive
    assert read_holder(folder) is None
    with pytest.raises(ZeroDivisionError), hold(folder, print):
        _ = 1 / 0
    assert read_holder(folder) is None


def test_a_holder_of_this_machine_that_lives_is_named_at_once(folder: UPath) -> None:
    with hold(folder, print) as mine:
        with pytest.raises(RunHeld) as error, hold(folder, print):
            pass
        mine.require()
    assert str(error.value).startswith(f"{folder}: is being written by ")
    assert "wait for it, stop it, or give this run another name" in str(error.value)


def test_a_holder_of_this_machine_that_is_dead_is_taken_over_at_once(
    folder: UPath, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease, "DEAD_AFTER", 1e9)
    program = "from yolo_dist.lease import Holder; print(Holder().model_dump_json())"
    dead = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    publish(folder / "lease-1.json", dead)
    with hold(folder, print) as mine:
        mine.require()


def test_another_process_with_the_number_of_a_dead_one_is_not_it(folder: UPath) -> None:
    publish(folder / "lease-1.json", Holder(process_started=1.0).model_dump_json())
    with hold(folder, print) as mine:
        mine.require()


def test_a_living_holder_in_another_container_of_the_same_name_is_not_taken_for_dead(tmp_path: Path) -> None:
    folder = location(tmp_path)
    its_own = {"machine": "another boot", "process": 2**30, "process_started": 1.0}
    publish(folder / "lease-1.json", Holder(**its_own).model_dump_json())
    signs = iter(range(1, 1000))

    def it_lives(_: str) -> None:
        publish(folder / "lease-1.json", Holder(**its_own, token="its", signs=next(signs)).model_dump_json())

    with pytest.raises(RunHeld), hold(folder, it_lives):
        pass


def test_a_holder_may_be_a_number_that_has_no_name(monkeypatch: pytest.MonkeyPatch) -> None:
    def nobody() -> str:
        raise KeyError("getpwuid(): uid not found: 12345")

    for variable in ("USER", "LOGNAME"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr("getpass.getuser", nobody)
    monkeypatch.setattr("os.getuid", lambda: 12345)
    assert Holder().user == "12345"


def test_a_clock_that_is_set_makes_nobody_dead(folder: UPath, monkeypatch: pytest.MonkeyPatch) -> None:
    """Linux knows when processes began by the time since its own start, which it derives from the clock."""
    before = psutil.boot_time()
    with hold(folder, print):
        monkeypatch.setattr("psutil._pslinux.boot_time", lambda: before + 3600)
        with pytest.raises(RunHeld), hold(folder, print):
            pass


def test_a_silent_holder_elsewhere_is_taken_over_after_some_time(folder: UPath) -> None:
    elsewhere(folder)
    said: list[str] = []
    began = time.monotonic()
    with hold(folder, said.append) as mine:
        assert time.monotonic() - began >= lease.DEAD_AFTER
        mine.require()
    assert said == [
        f"{folder}: was written by ann on other-machine, process 7, job raysubmit_1, since 2026-11-24 10:00:00 +0000; "
        "looking up to 1 s whether it lives"
    ]


def test_a_holder_elsewhere_that_gives_signs_is_left_alone(folder: UPath) -> None:
    theirs = Lease(folder, 1, elsewhere(folder))
    with pytest.raises(RunHeld, match="ann on other-machine"), hold(folder, print):
        pass
    theirs.release()
    with hold(folder, print):
        pass


def test_one_that_was_away_too_long_finds_out_and_lets_the_other_be(folder: UPath) -> None:
    with hold(folder, print) as mine:
        theirs = elsewhere(folder, number=2)
        with pytest.raises(RunHeld, match="ann on other-machine"):
            mine.require()
        assert mine.lost
    assert read_holder(folder) == theirs


def how_many_get(folder: UPath, count: int) -> int:
    """Of many that come at once, while none lets go before all have tried."""
    ready = threading.Barrier(count)

    def attempt(_: int) -> bool:
        ready.wait()
        try:
            with hold(folder, print):
                ready.wait(timeout=10)
                return True
        except RunHeld:
            ready.wait(timeout=10)
            return False

    with ThreadPoolExecutor(count) as pool:
        return sum(pool.map(attempt, range(count)))


def test_of_many_that_come_at_once_one_gets_it(folder: UPath) -> None:
    assert how_many_get(folder, 6) == 1


def test_of_many_that_take_over_one_elsewhere_one_gets_it(folder: UPath) -> None:
    elsewhere(folder)
    assert how_many_get(folder, 3) == 1


def test_of_many_that_take_over_a_dead_process_one_gets_it(folder: UPath) -> None:
    publish(folder / "lease-1.json", Holder(process_started=1.0).model_dump_json())
    assert how_many_get(folder, 6) == 1


def test_one_file_is_left_that_says_who_was_the_last(folder: UPath) -> None:
    for _ in range(3):
        with hold(folder, print):
            pass
    (file,) = folder.iterdir()
    assert file.name == "lease-3.json"
    assert json.loads(file.read_text())["released"]


def test_work_is_waited_for_and_not_done_twice(folder: UPath) -> None:
    made, waiting = threading.Event(), threading.Event()

    def done() -> bool:
        waiting.set()
        return made.is_set()

    def wait(_: int) -> bool:
        with hold_unless_done(folder, done) as ours:
            return ours is not None

    with hold_unless_done(folder, made.is_set) as ours, ThreadPoolExecutor(2) as pool:
        assert ours
        others = pool.map(wait, range(2))
        assert waiting.wait(10)
        made.set()
        assert list(others) == [False, False]


def test_who_waits_long_for_work_looks_less_often(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock, looks = 0.0, 0
    folder = location(tmp_path)

    def sleep(seconds: float) -> None:
        nonlocal clock
        clock += seconds

    def done() -> bool:
        nonlocal looks
        looks += 1
        return clock > 3600

    monkeypatch.setattr(lease, "SECONDS_BETWEEN_LOOKS", 1.0)
    with hold(folder, print):
        clocks = SimpleNamespace(sleep=sleep, monotonic=lambda: clock, strftime=time.strftime)
        monkeypatch.setattr(lease, "time", clocks)
        with hold_unless_done(folder, done) as ours:
            assert not ours
    assert clock <= 3600 + lease.LONGEST_BETWEEN_LOOKS
    assert looks < 400


def test_work_of_one_that_failed_or_died_goes_to_one_that_waits(folder: UPath) -> None:
    elsewhere(folder)
    with pytest.raises(ZeroDivisionError), hold_unless_done(folder, lambda: False):
        _ = 1 / 0
    with hold_unless_done(folder, lambda: False) as ours:
        assert ours


def test_a_file_that_is_no_lease_counts_as_a_silent_holder(folder: UPath) -> None:
    publish(folder / "lease-1.json", '{"half": ')
    with hold(folder, print) as mine:
        mine.require()


def test_a_job_is_named_by_the_id_it_was_submitted_under(monkeypatch: pytest.MonkeyPatch) -> None:
    job = {"runtime_env": {}, "metadata": {"job_submission_id": "raysubmit_7"}}
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", json.dumps(job))
    assert "job raysubmit_7" in str(Holder())
