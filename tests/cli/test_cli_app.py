"""The command line as a whole: help, exit codes, and what happens to errors."""

import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import entry_points
from typing import Any

import pytest
import typer
from command_line import yolo_dist

from yolo_dist.cli import main
from yolo_dist.cli.app import app
from yolo_dist.errors import ConfigError, DataError, NonFiniteLoss


def command_paths(command: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    if path:
        yield path
    for name, below in getattr(command, "commands", {}).items():
        yield from command_paths(below, (*path, name))


COMMANDS = sorted(command_paths(typer.main.get_command(app)))


def test_all_commands_are_there() -> None:
    data = ["datasets", "convert", "anchors", "shards", "shards info", "shards preview", "shards verify"]
    models = ["train", "prune", "sensitivity", "quantize", "evaluate", "detect", "export"]
    runs = ["demo", "doctor", "run", "tune", "report", "submit", "jobs", "jobs list", "jobs logs", "jobs stop"]
    runs += ["runs", "runs list", "runs show", "runs pull", "runs clean"]
    assert [" ".join(path) for path in COMMANDS] == sorted([*data, *models, *runs])


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_the_help_of_every_command_shows_an_example_of_it(path: tuple[str, ...]) -> None:
    outcome = yolo_dist(*path, "--help")
    assert outcome.code == 0
    assert f"Example: yolo-dist {' '.join(path)}" in " ".join(outcome.out.split())


def test_help_says_where_to_start() -> None:
    assert "Start with: yolo-dist demo" in yolo_dist("--help").out


def test_the_installed_command_is_this_one() -> None:
    (script,) = entry_points(group="console_scripts", name="yolo-dist")
    assert script.load() is main


def test_the_module_runs_as_a_program_and_its_help_does_not_wait_for_torch_or_ray() -> None:
    program = "import runpy, sys, atexit; sys.argv = ['yolo-dist', '--help']; " + (
        "atexit.register(lambda: print('loaded:', {'torch', 'ray', 'wandb'} & set(sys.modules))); "
        "runpy.run_module('yolo_dist', run_name='__main__')"
    )
    finished = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert "Usage: yolo-dist" in finished.stdout
    assert finished.stdout.endswith("loaded: set()\n")


@pytest.mark.parametrize("words", [["--nonsense"], ["nonsense"], ["shards", "nonsense"], ["run"], ["evaluate"], []])
def test_wrong_usage_exits_with_2(words: list[str]) -> None:
    assert yolo_dist(*words).code == 2


@pytest.mark.parametrize(
    ("error", "code", "lines"),
    [
        pytest.param(ConfigError("a.yaml", ["x: 1", "y: 2"]), 2, ["a.yaml: x: 1", "a.yaml: y: 2"], id="wrong input"),
        pytest.param(DataError("shard-0: damaged"), 2, ["shard-0: damaged"], id="damaged data"),
        pytest.param(NonFiniteLoss("step 3"), 1, ["step 3"], id="work that failed"),
        pytest.param(
            PermissionError(13, "Permission denied", "/data/x"),
            2,
            ["/data/x: Permission denied; check the path and its permissions"],
            id="a path that cannot be used",
        ),
        pytest.param(
            OSError(28, "No space left on device", "/data/x"),
            1,
            ["/data/x: No space left on device; check the path and its permissions"],
            id="a full disk",
        ),
        pytest.param(
            KeyError("left\nright"),
            1,
            [r"unexpected KeyError: 'left\nright'; `yolo-dist --debug …` shows where it comes from"],
            id="a mistake of ours",
        ),
        pytest.param(
            RuntimeError("two\nlines"),
            1,
            ["unexpected RuntimeError: two lines; `yolo-dist --debug …` shows where it comes from"],
            id="a mistake of ours in two lines",
        ),
    ],
)
def test_an_error_is_one_line_a_problem_and_an_exit_code(
    error: Exception, code: int, lines: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    _doctor_raises(error, monkeypatch)
    outcome = yolo_dist("doctor")
    assert (outcome.code, outcome.errors, outcome.out) == (code, lines, "")


def test_debug_shows_where_an_error_comes_from(monkeypatch: pytest.MonkeyPatch) -> None:
    _doctor_raises(DataError("planted"), monkeypatch)
    with pytest.raises(DataError, match="planted"):
        yolo_dist("--debug", "doctor")
    assert yolo_dist("doctor").errors == ["planted"]


def test_an_interruption_says_how_to_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    _doctor_raises(KeyboardInterrupt(), monkeypatch)
    outcome = yolo_dist("doctor")
    assert (outcome.code, outcome.err) == (130, "interrupted; the same command goes on where it stopped\n")


def _doctor_raises(error: BaseException, monkeypatch: pytest.MonkeyPatch) -> None:
    def examine(_storage: str | None) -> None:
        raise error

    monkeypatch.setattr("yolo_dist.doctor.examine", examine)
