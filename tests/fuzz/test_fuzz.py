"""A few hostile files for every reader; `make fuzz` tries many more."""

import random
import subprocess
import sys
from itertools import islice
from pathlib import Path

import pytest
from fuzz_mutation import EDITS, mutated
from fuzz_targets import TARGETS, Target
from fuzzer import cases, check, fuzz

from yolo_dist.errors import DataError


@pytest.mark.parametrize("name", TARGETS)
def test_hostile_files_are_read_or_refused_in_a_line(name: str, tmp_path: Path) -> None:
    work = tmp_path / "work"
    work.mkdir()
    for data in islice(cases(TARGETS[name], tmp_path, seed=0), 60):
        check(TARGETS[name], data, work)


@pytest.mark.parametrize("name", TARGETS)
def test_examples_are_read(name: str, tmp_path: Path) -> None:
    for number, example in enumerate(TARGETS[name].examples(tmp_path)):
        (tmp_path / str(number)).mkdir()
        TARGETS[name].read(example, tmp_path / str(number))


def test_a_seed_is_a_file() -> None:
    first, again, other = (mutated([b"width=416\nheight=416\n"], random.Random(seed)) for seed in (1, 1, 2))
    assert first == again != other


@pytest.mark.parametrize("edit", EDITS)
def test_every_edit_takes_any_file(edit: object) -> None:
    assert callable(edit)
    for data in (b"", b"a", b"1 2\n3\n"):
        assert isinstance(edit(data, random.Random(0)), bytes)


def broken(error: Exception) -> Target:
    def read(_: bytes, __: Path) -> None:
        raise error

    return Target(lambda _: [b"example"], read)


def test_what_is_found_is_kept_and_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(TARGETS, "broken", broken(IndexError("out of range")))
    assert not fuzz("broken", seconds=1, seed=5, save=tmp_path)
    assert capsys.readouterr().out == (
        f"broken: IndexError: out of range; seed 5, file 0: {tmp_path / 'broken.bytes'}\n"
    )
    assert (tmp_path / "broken.bytes").is_file()


def test_a_refusal_of_several_lines_is_found(tmp_path: Path) -> None:
    check(broken(DataError("one line")), b"", tmp_path)
    with pytest.raises(AssertionError, match="several lines"):
        check(broken(DataError("one\ntwo")), b"", tmp_path)


def test_the_command_fuzzes_what_it_is_asked_to(tmp_path: Path) -> None:
    command = [sys.executable, str(Path(__file__).with_name("fuzzer.py")), "cfg", "--seconds=0", "--seed=1"]
    ran = subprocess.run([*command, f"--save={tmp_path}"], capture_output=True, text=True)
    assert (ran.returncode, ran.stdout) == (0, "cfg: 1 files, nothing found (seed 1)\n"), ran.stderr
