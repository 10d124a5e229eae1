"""Checkpoints: what was kept comes back, the newest that is whole, and never by running somebody's code."""

import errno
import json
import os
import resource
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from upath import UPath

from yolo_dist.errors import TrainError
from yolo_dist.storage import location
from yolo_dist.train import checkpoint
from yolo_dist.train.checkpoint import FORMAT, RECORD_FILE, TENSORS_FILE, Checkpoints

Damage = Callable[[Path], object]


def state(value: float = 0.0) -> dict[str, Any]:
    weights = torch.arange(24.0).reshape(2, 3, 2, 2).to(memory_format=torch.channels_last) + value
    return {"trainer": {"epoch": 3, "network": {"layers.0.weight": weights}, "momentum": {}}, "seconds": 0.1 + value}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "checkpoints"


@pytest.fixture
def checkpoints(folder: Path) -> Checkpoints:
    return Checkpoints(UPath(folder))


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def seconds(checkpoints: Checkpoints) -> float | None:
    newest = checkpoints.newest()
    return None if newest is None else newest["seconds"]


def test_a_state_comes_back_as_it_was(checkpoints: Checkpoints) -> None:
    checkpoints.save(120, state())
    back = checkpoints.newest()
    assert back is not None
    weights = back["trainer"]["network"].pop("layers.0.weight")
    assert torch.equal(weights, state()["trainer"]["network"]["layers.0.weight"])
    assert back == {"trainer": {"epoch": 3, "network": {}, "momentum": {}}, "seconds": 0.1}


def test_there_is_nothing_before_the_first_one(checkpoints: Checkpoints) -> None:
    assert checkpoints.newest() is None


@pytest.mark.parametrize("kept", [1, 2, 3])
def test_the_newest_stay(folder: Path, kept: int) -> None:
    checkpoints = Checkpoints(UPath(folder), kept)
    for step in (5, 90, 100, 1000):
        checkpoints.save(step, state(step))
    assert names(folder) == [f"step-{step:09d}" for step in (5, 90, 100, 1000)][-kept:]
    assert seconds(checkpoints) == 1000.1


def flip_a_bit(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        pytest.param(TENSORS_FILE, flip_a_bit, id="a flipped bit in a tensor"),
        pytest.param(TENSORS_FILE, lambda path: path.write_bytes(path.read_bytes()[:50]), id="half the tensors"),
        pytest.param(TENSORS_FILE, Path.unlink, id="no tensors"),
        pytest.param(RECORD_FILE, Path.unlink, id="no record"),
        pytest.param(RECORD_FILE, lambda path: path.write_text('{"format": 1, "co'), id="half a record"),
        pytest.param(RECORD_FILE, lambda path: path.write_text("[]"), id="a record of another shape"),
        pytest.param(RECORD_FILE, lambda path: path.write_text('{"format": 1, "code": "0"}'), id="a poor record"),
        pytest.param(RECORD_FILE, lambda path: path.write_bytes(b"\xff"), id="a record that is no text"),
    ],
)
def test_a_damaged_newest_one_is_passed_over_for_the_one_before_and_replaced_later(
    checkpoints: Checkpoints, folder: Path, capsys: pytest.CaptureFixture[str], name: str, damage: Damage
) -> None:
    checkpoints.save(1, state(1))
    checkpoints.save(2, state(2))
    damage(folder / "step-000000002" / name)
    assert seconds(checkpoints) == 1.1
    (line,) = capsys.readouterr().out.splitlines()
    assert "step-000000002: damaged, going back to the one before (" in line
    checkpoints.save(2, state(3))
    assert seconds(checkpoints) == 3.1


def test_newer_ones_that_are_damaged_go_with_the_next(checkpoints: Checkpoints, folder: Path) -> None:
    for step in (1, 9):
        checkpoints.save(step, state(step))
    flip_a_bit(folder / "step-000000009" / TENSORS_FILE)
    checkpoints.save(2, state(2))
    assert names(folder) == ["step-000000001", "step-000000002"]


def test_where_all_are_damaged_there_is_none(checkpoints: Checkpoints, folder: Path) -> None:
    checkpoints.save(1, state(1))
    flip_a_bit(folder / "step-000000001" / TENSORS_FILE)
    assert checkpoints.newest() is None


@pytest.mark.parametrize(
    ("changes", "found", "said"),
    [
        ({"code": "0.0.1"}, 0.1, "written by yolo-dist 0.0.1, this is 9.9; going on"),
        ({"code": "9.9"}, 0.1, ""),
        ({"code": "0.0.1", "format": FORMAT + 1, "more": 1}, None, f"in format {FORMAT + 1}, not {FORMAT}; begin"),
    ],
)
def test_other_code_is_told_and_another_format_begins_anew(
    checkpoints: Checkpoints,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    changes: dict[str, Any],
    found: float | None,
    said: str,
) -> None:
    checkpoints.save(1, state())
    record = folder / "step-000000001" / RECORD_FILE
    record.write_text(json.dumps(json.loads(record.read_text()) | changes))
    monkeypatch.setattr(checkpoint, "code_version", lambda: "9.9")
    assert seconds(checkpoints) == found
    assert said in capsys.readouterr().out
    assert checkpoints.newest(tell=False) is not None or found is None
    assert capsys.readouterr().out == ""


def test_code_in_a_checkpoint_is_not_run(checkpoints: Checkpoints, folder: Path, tmp_path: Path) -> None:
    class Malice:
        def __reduce__(self) -> tuple[Any, ...]:
            return os.mkdir, (str(tmp_path / "run"),)

    checkpoints.save(1, state())
    torch.save(Malice(), folder / "step-000000001" / TENSORS_FILE)
    assert checkpoints.newest() is None
    assert not (tmp_path / "run").exists()


def full_disk(*_: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("write", ["save_file", "os.fsync"])
def test_a_full_disk_is_one_line_and_costs_no_earlier_checkpoint(
    checkpoints: Checkpoints, folder: Path, monkeypatch: pytest.MonkeyPatch, write: str
) -> None:
    for step in (1, 2):
        checkpoints.save(step, state(step))
    monkeypatch.setattr(f"yolo_dist.train.checkpoint.{write}", full_disk)
    with pytest.raises(TrainError) as caught:
        checkpoints.save(3, state(3))
    assert str(caught.value) == (
        f"{folder}/step-000000003: the checkpoint cannot be written (No space left on device); make room, then the "
        "same command goes on from step-000000002"
    )
    assert names(folder) == ["step-000000001", "step-000000002"]
    assert seconds(checkpoints) == 2.1


def test_what_is_written_to_a_store_fills_the_disk_of_temporary_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoints = Checkpoints(location(f"memory://checkpoints/{tmp_path.name}"))
    monkeypatch.setattr("yolo_dist.train.checkpoint.save_file", full_disk)
    with pytest.raises(TrainError, match=f"^{tempfile.gettempdir()}: the checkpoint cannot be written \\(No space"):
        checkpoints.save(1, state(1))


@pytest.fixture
def no_room() -> Iterator[Callable[[int], None]]:
    """Lets files of this process grow to so many bytes and no further."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda size: resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_the_library_that_writes_tensors_finds_out_too(
    checkpoints: Checkpoints, no_room: Callable[[int], None]
) -> None:
    """Its errors are no OSErrors."""
    checkpoints.save(1, state(1))
    large = {"weights": torch.zeros(1 << 18)}
    no_room(1 << 19)
    with pytest.raises(TrainError, match=r"step-000000002: the checkpoint cannot be written \(.*File too large"):
        checkpoints.save(2, large)
    assert seconds(checkpoints) == 1.1


def test_a_process_that_dies_while_writing_costs_no_earlier_checkpoint(
    checkpoints: Checkpoints, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a kill leaves is the hidden folder under which a checkpoint is made ready."""
    checkpoints.save(1, state(1))
    (folder / ".step-000000002.x").mkdir()
    (folder / ".step-000000002.x" / TENSORS_FILE).write_bytes(b"half")
    assert seconds(checkpoints) == 1.1
    checkpoints.save(2, state(2))
    assert seconds(checkpoints) == 2.1


def test_a_store_that_fails_is_no_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoints = Checkpoints(location(f"memory://checkpoints/{tmp_path.name}"))
    checkpoints.save(1, state(1))
    answers = iter([OSError("503 Slow Down")])

    def read_text(path: UPath) -> str:
        for answer in answers:
            raise answer
        return path.read_bytes().decode()

    monkeypatch.setattr(type(checkpoints.folder), "read_text", read_text)
    assert seconds(checkpoints) == 1.1


@pytest.mark.parametrize(
    ("failure", "named"),
    [
        pytest.param(OSError(errno.EIO, "Input/output error"), "{folder}/step-000000002", id="of a read"),
        pytest.param(OSError(errno.ESTALE, "Stale file handle", "/nfs/state"), "/nfs/state", id="of a known file"),
        pytest.param(OSError(errno.ENOSPC, "No space left on device"), None, id="a download to a full disk"),
    ],
)
def test_what_cannot_be_read_is_no_damage_and_ends_the_stage(
    checkpoints: Checkpoints, folder: Path, monkeypatch: pytest.MonkeyPatch, failure: OSError, named: str | None
) -> None:
    """Going back to an earlier one, or to the start, would remove it with the next save."""

    def unreadable(_: UPath) -> str:
        raise failure

    for step in (1, 2):
        checkpoints.save(step, state(step))
    with monkeypatch.context() as patched:
        patched.setattr(checkpoint, "sha256", unreadable)
        with pytest.raises(OSError, match=failure.strerror) as caught:
            checkpoints.newest()
    assert caught.value.filename == (named and named.format(folder=folder))
    assert seconds(checkpoints) == 2.1


def test_the_code_has_a_name_of_its_own_whatever_the_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = []
    for code in ("x = 1", "x = 1", "x = 2"):
        (tmp_path / "module.py").write_text(code)
        monkeypatch.setattr(checkpoint, "PACKAGE", tmp_path)
        checkpoint.code_version.cache_clear()
        names.append(checkpoint.code_version())
    checkpoint.code_version.cache_clear()
    assert names[0] == names[1] != names[2]


def test_checkpoints_lie_at_urls_as_they_do_on_disk(tmp_path: Path) -> None:
    checkpoints = Checkpoints(location(f"memory://checkpoints/{tmp_path.name}"), kept=1)
    for step in (1, 2):
        checkpoints.save(step, state(step))
    assert seconds(checkpoints) == 2.1
    (checkpoints.folder / "step-000000002" / RECORD_FILE).unlink()
    assert seconds(checkpoints) is None
