"""The real command, ended by real signals: what it says, and that the same command goes on."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from tiny_runs import prepare, recipe, stage_file

from yolo_dist.pipeline import run
from yolo_dist.recipe import Recipe
from yolo_dist.storage import location
from yolo_dist.train.tracking import read_metrics

SIGNAL_AT = """
import os, sys
from yolo_dist.cli import main
from yolo_dist.train.loop import Trainer

train_batch = Trainer._train_batch

def signal_at(trainer, step, batch):
    if [trainer.epoch, step] == {place}:
        os.kill(os.getpid(), {signal})
    return train_batch(trainer, step, batch)

Trainer._train_batch = signal_at
sys.argv = ["yolo-dist", "run", "tiny.yaml"]
main()
"""
"""The command, which sends itself a signal before the batch of a place."""

STAGES = [{"id": "base", "kind": "train", "epochs": 3, "batch_size": 4, "nominal_batch": 4, "evaluate_every": 0}]


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shards of twelve images, three steps an epoch, and the stage as it comes out without interruption."""
    folder = prepare(tmp_path_factory.mktemp("prepared"))
    run(recipe(folder, stages=STAGES))
    return folder


def weights(folder: Path) -> bytes:
    return stage_file(folder, "base", "model.weights").read_bytes()


def losses(folder: Path) -> list[dict[str, float]]:
    return [line["loss"] for line in read_metrics(location(folder / "runs" / "tiny" / "metrics.jsonl"))]


def interrupted(
    prepared: Path, folder: Path, number: int, place: list[int], **changes: Any
) -> tuple[subprocess.CompletedProcess[str], Recipe]:
    """Outcome of the command that gets a signal at a place (epoch, step), and its recipe."""
    stages = [STAGES[0] | changes]
    again = recipe(prepared, stages=stages, storage=str(folder / "runs"))
    (folder / "tiny.yaml").write_text(again.to_yaml())
    script = SIGNAL_AT.format(place=place, signal=number)
    outcome = subprocess.run([sys.executable, "-c", script], cwd=folder, capture_output=True, text=True, check=False)
    return outcome, again


def test_a_signal_lets_the_step_end_keeps_the_state_and_says_so(
    prepared: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    outcome, again = interrupted(prepared, tmp_path, signal.SIGTERM, [1, 1])
    assert outcome.returncode == 128 + signal.SIGTERM
    assert outcome.stderr.splitlines()[-2:] == [
        "SIGTERM: ending after this step, with a checkpoint; once more ends it at once",
        "stopped by SIGTERM after epoch 1, step 2; the same command goes on from there",
    ]
    for record in (tmp_path / "runs/tiny/checkpoints").glob("*/*/checkpoint.json"):
        values = json.loads(record.read_text())
        values["state"]["seconds"] = 1000.0
        record.write_text(json.dumps(values))
    (result,) = run(again)
    assert "going on after epoch 1, step 2 from the last checkpoint" in capsys.readouterr().out
    assert weights(tmp_path) == weights(prepared)
    assert losses(tmp_path) == losses(prepared)
    assert result.seconds > 1000  # in both processes


def test_kill_9_costs_what_came_after_the_last_checkpoint(
    prepared: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    outcome, again = interrupted(prepared, tmp_path, signal.SIGKILL, [1, 2], checkpoint_every={"steps": 1})
    assert outcome.returncode == -signal.SIGKILL
    run(again)
    assert "going on after epoch 1, step 2 from the last checkpoint" in capsys.readouterr().out
    assert weights(tmp_path) == weights(prepared)
    assert losses(tmp_path) == losses(prepared)
    assert not (tmp_path / "runs" / "tiny" / "checkpoints").exists()


@contextmanager
def started(*command: str, folder: Path) -> Iterator[subprocess.Popen[str]]:
    """A command under way, which does not outlive the block."""
    environment = os.environ | {"PYTHONUNBUFFERED": "1"}
    environment.pop("RAY_ADDRESS", None)
    process = subprocess.Popen(
        command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def test_a_signal_to_the_command_reaches_its_workers(prepared: Path, tmp_path: Path) -> None:
    stages = [STAGES[0] | {"epochs": 100_000, "checkpoint_every": 100_000}]
    endless = recipe(prepared, stages=stages, storage=str(tmp_path / "runs"), cluster={"workers": 1})
    (tmp_path / "tiny.yaml").write_text(endless.to_yaml())
    command = (sys.executable, "-c", "from yolo_dist.cli import main; main()", "run", "tiny.yaml")
    with started(*command, folder=tmp_path) as process:
        assert process.stdout is not None
        next(line for line in process.stdout if "epoch 2/" in line)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate()
        assert process.returncode == 128 + signal.SIGINT, errors
    assert "stopped by SIGINT after epoch" in errors.splitlines()[-1]
    (checkpoint,) = (tmp_path / "runs" / "tiny" / "checkpoints").glob("*/step-*")
    assert int(checkpoint.name.removeprefix("step-")) >= 6
