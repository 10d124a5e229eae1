"""Weights & Biases: the real client, without a network, and what it wrote read back."""

import json
import socket
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import wandb
from tracked import GAUGE, epoch, outcome, tracked
from upath import UPath
from wandb_log import artifacts, configurations, history, read_records, runs, summary
from wandb_server import KEY, WandbServer, wandb_server

from yolo_dist.train.tracking import TrackedStage, Tracker, TrackingConfig, WandbConfig, read_metrics, track_outcome
from yolo_dist.train.tracking import weights_and_biases as module

pytestmark = pytest.mark.usefixtures("wandb_home")

OFFLINE = TrackingConfig(wandb=WandbConfig(project="tests", mode="offline"))
ONLINE = TrackingConfig(wandb=WandbConfig(project="tests", mode="online"))
Use = Callable[[WandbServer], None]


def track(stage: TrackedStage, config: TrackingConfig, *lines: dict[str, Any]) -> None:
    with Tracker(stage, config) as tracker:
        for line in lines:
            tracker.log(line)


def test_an_epoch_arrives_with_every_number_and_the_histogram(tmp_path: Path) -> None:
    accuracies = {"map": 0.25, "map50": 0.5, "per_class": {"cat": {"map": 0.2, "map50": 0.4}}}
    track(tracked(tmp_path), OFFLINE, epoch(1), epoch(2, gauge=GAUGE, **accuracies))
    first, second = history(tmp_path)
    assert (first["loss/box"], first["loss/objectness"], first["loss/class"], first["loss/total"]) == (1, 2, 0.5, 3.5)
    assert (first["learning_rate"], first["_step"], second["_step"]) == (0.01, 1, 2)
    assert (first["learning_rates/biases"], first["learning_rates/weights"]) == (0.04, 0.01)
    assert (second["map50"], second["per_class/cat/map50"], second["gauge/prunable"]) == (0.5, 0.4, 0.25)
    assert second["gauge/histogram/_type"] == "histogram"
    assert second["gauge/histogram/values"] == GAUGE["histogram"]["counts"]
    assert second["gauge/histogram/bins"] == pytest.approx(GAUGE["histogram"]["edges"])


def test_a_run_is_known_by_project_group_kind_and_configuration(tmp_path: Path) -> None:
    told: dict[str, Any] = {"settings": {"optimizer": {"momentum": 0.9}}, "recipe": {"image_size": [416, 416]}}
    track(tracked(tmp_path, "small", kind="prune", run_identity="a1", **told), OFFLINE)
    (run,) = runs(tmp_path)
    assert (run.project, run.run_group, run.job_type, run.display_name) == ("tests", "run-a1", "prune", "run/small")
    (configuration,) = configurations(tmp_path)
    assert configuration == {
        "optimizer": {"momentum": 0.9},
        "stage": {"id": "small", "kind": "prune"},
        "recipe": {"image_size": [416, 416]},
    }


def test_a_stage_that_goes_on_and_its_outcome_are_one_run(tmp_path: Path) -> None:
    stage = tracked(tmp_path, run_identity="a1", stage_identity="b2")
    track(stage, OFFLINE, epoch(1))
    track(stage, OFFLINE, epoch(2))
    track_outcome(stage, OFFLINE, outcome(tmp_path / "stage"))
    assert [run.run_id for run in runs(tmp_path)] == [stage.identity] * 3


@pytest.mark.parametrize("other", [{"run_identity": "c3"}, {"stage_identity": "d4"}, {"stage": "tuned"}])
def test_another_run_stage_or_setting_is_another_run(tmp_path: Path, other: dict[str, Any]) -> None:
    usual = {"run_identity": "a1", "stage_identity": "b2"}
    assert tracked(tmp_path, **usual).identity == tracked(tmp_path / "moved", **usual).identity
    assert tracked(tmp_path, **usual).identity != tracked(tmp_path, **usual | other).identity


def test_an_outcome_brings_numbers_images_and_the_bundle(tmp_path: Path) -> None:
    track_outcome(tracked(tmp_path, kind="prune"), OFFLINE, outcome(tmp_path / "stage"))
    assert {name: summary(tmp_path)[name] for name in ("result/map50", "before/map50", "proof/macs/after")} == {
        "result/map50": 0.75,
        "before/map50": 0.5,
        "proof/macs/after": 1e6,
    }
    (row,) = history(tmp_path)
    assert (row["validation/_type"], row["validation/captions"]) == ("images/separated", ["000"])
    assert (row["validation/width"], row["validation/height"]) == (4, 6)
    (artifact,) = artifacts(tmp_path)
    assert (artifact.name, artifact.type) == ("run-base", "model")
    assert {entry.path: entry.local_path for entry in artifact.manifest.contents} == {
        name: str(tmp_path / "stage" / name) for name in ("bundle.json", "model.cfg")
    }
    assert json.loads(artifact.metadata)["url"] == str(tmp_path / "stage")


def test_files_that_will_be_gone_are_copied(tmp_path: Path) -> None:
    made = replace(outcome(tmp_path / "temporary"), lasting=False)
    track_outcome(tracked(tmp_path), OFFLINE, made)
    (artifact,) = artifacts(tmp_path)
    copies = [Path(entry.local_path) for entry in artifact.manifest.contents]
    assert {path.read_text() for path in copies} == {"[net]\n", "{}"}
    assert not any(path.is_relative_to(tmp_path / "temporary") for path in copies)


def test_without_a_key_an_online_run_is_an_offline_one_and_says_so(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    track(tracked(tmp_path), ONLINE, epoch(1))
    assert [row["learning_rate"] for row in history(tmp_path)] == [0.01]
    printed = capfd.readouterr()
    first, *_ = printed.out.splitlines()
    assert first == (
        "base: Weights & Biases goes on offline: no key (set WANDB_API_KEY where the first worker runs); "
        "`wandb sync` uploads it later"
    )
    assert printed.err == ""


@pytest.fixture
def use(monkeypatch: pytest.MonkeyPatch) -> Callable[[WandbServer], None]:
    """Makes a server that of the client, which has a key for it and little patience."""

    def use(server: WandbServer) -> None:
        monkeypatch.setattr(module, "START_SECONDS", 1.0)
        monkeypatch.setenv("WANDB_API_KEY", KEY)
        monkeypatch.setenv("WANDB_BASE_URL", server.url)

    return use


def test_an_online_run_arrives_at_its_server(tmp_path: Path, use: Use, monkeypatch: pytest.MonkeyPatch) -> None:
    with wandb_server() as server:
        use(server)
        monkeypatch.setattr(module, "START_SECONDS", 30.0)
        track(tracked(tmp_path), ONLINE, epoch(1), epoch(2))
    assert [(row["_step"], row["learning_rate"]) for row in server.history] == [(1, 0.01), (2, 0.01)]
    assert server.configuration["epochs"] == 20
    assert [path for path in server.requests if "otel" in path] == []  # nor what the client tells about itself


@pytest.mark.parametrize("manner", ["gone", "refusing", "silent"])
def test_without_a_server_that_takes_it_an_online_run_is_an_offline_one(
    tmp_path: Path, use: Use, capfd: pytest.CaptureFixture[str], manner: Any
) -> None:
    with wandb_server("taking" if manner == "gone" else manner) as server:
        use(server)
        if manner == "gone":
            server.go_away()
        started = time.monotonic()
        track(tracked(tmp_path), ONLINE, epoch(1))
        assert time.monotonic() - started < 20
    assert [row["learning_rate"] for row in history(tmp_path)] == [0.01]
    printed = capfd.readouterr()
    first, second = printed.out.splitlines()
    assert first.startswith("base: Weights & Biases goes on offline: ")
    assert second.startswith("base  epoch 1/20")
    assert KEY not in printed.out + printed.err
    assert [path for path in tmp_path.rglob("*") if path.is_file() and KEY.encode() in path.read_bytes()] == []


def test_a_server_that_failed_is_left_alone_for_a_while(
    tmp_path: Path, use: Use, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with wandb_server("refusing") as server:
        use(server)
        track(tracked(tmp_path), ONLINE, epoch(1))
        asked = len(server.requests)
        track_outcome(tracked(tmp_path), ONLINE, outcome(tmp_path / "stage"))
        assert 0 < asked == len(server.requests)
        first, _, second = capsys.readouterr().out.splitlines()
        assert second == first.replace("; `wandb", ", a short while ago; `wandb")
        monkeypatch.setattr(module, "RETRY_SECONDS", 0.0)
        track_outcome(tracked(tmp_path), ONLINE, outcome(tmp_path / "stage"))
        assert asked < len(server.requests)


def test_a_server_that_goes_away_in_the_middle_stops_nothing_and_is_left_alone(
    tmp_path: Path, use: Use, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with wandb_server() as server:
        use(server)
        monkeypatch.setattr(module, "START_SECONDS", 30.0)
        monkeypatch.setattr(module, "FINISH_SECONDS", 1.0)
        with Tracker(tracked(tmp_path), ONLINE) as tracker:
            tracker.log(epoch(1))
            server.go_away()
            tracker.log(epoch(2))
        monkeypatch.setattr(module, "FINISH_SECONDS", 60.0)
        track_outcome(tracked(tmp_path), ONLINE, outcome(tmp_path / "stage"))
    assert [line["epoch"] for line in read_metrics(tracker.stage.metrics)] == [1, 2]
    (online,) = tmp_path.glob("wandb/run-*/*.wandb")
    assert [record.history.step.num for record in read_records(online) if record.HasField("history")] == [1, 2]
    assert len(artifacts(tmp_path)) == 1
    reason = "its server did not take everything within 1 s"
    said = [line for line in capfd.readouterr().out.splitlines() if "Weights & Biases" in line]
    assert said == [
        f"base: Weights & Biases: {reason}; `wandb sync` uploads the rest later",
        f"base: Weights & Biases goes on offline: {reason}, a short while ago; `wandb sync` uploads it later",
    ]


def test_the_key_is_in_nothing_that_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    track(tracked(tmp_path), OFFLINE, epoch(1))
    track_outcome(tracked(tmp_path), OFFLINE, outcome(tmp_path / "stage"))
    written = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(written) > 5
    assert [path for path in written if KEY.encode() in path.read_bytes()] == []


def test_credentials_of_urls_are_in_nothing_that_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    url = f"s3://user:{KEY}@bucket/bccd"
    monkeypatch.setattr(sys, "argv", ["yolo-dist", "run", "recipe.yaml", f"shards={url}"])
    stage = tracked(tmp_path, recipe={"shards": url}, settings={"distillation": {"teacher": url}})
    both = OFFLINE.model_copy(update={"tensorboard": True})
    track(stage, both, epoch(1))
    made = replace(outcome(tmp_path / "stage"), url=url)
    record = {"stage": {"config": {"distillation": {"teacher": f"https://me:{KEY}@models.example/t?sig={KEY}"}}}}
    (tmp_path / "stage" / "bundle.json").write_text(json.dumps(record))
    track_outcome(stage, both, made)
    (entry,) = [one for one in artifacts(tmp_path)[0].manifest.contents if one.path == "bundle.json"]
    teacher = json.loads(Path(entry.local_path).read_text())["stage"]["config"]["distillation"]["teacher"]
    assert teacher == "https://models.example/t"
    (tmp_path / "stage" / "bundle.json").unlink()  # the run's own, which others start from
    assert {one["recipe"]["shards"] for one in configurations(tmp_path)} == {"s3://bucket/bccd"}
    written = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert [path for path in written if KEY.encode() in path.read_bytes()] == []


def test_an_error_inside_the_client_does_not_end_the_stage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise OSError("planted\nsecond line")

    with Tracker(tracked(tmp_path), OFFLINE) as tracker:
        monkeypatch.setattr(wandb.Run, "log", broken)
        tracker.log(epoch(1))
        tracker.log(epoch(2))
    assert [line["epoch"] for line in read_metrics(tracker.stage.metrics)] == [1, 2]
    complaints = [line for line in capsys.readouterr().out.splitlines() if "failed" in line]
    assert complaints == ["base: Weights & Biases failed (OSError: planted); going on without it"]


def test_a_client_that_does_not_even_start_does_not_end_the_stage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise wandb.Error("planted")

    monkeypatch.setattr(wandb, "init", broken)
    track(tracked(tmp_path), OFFLINE, epoch(1))
    assert "base: Weights & Biases failed (Error: planted); going on without it" in capsys.readouterr().out


def test_where_offline_files_of_a_run_in_an_object_store_are_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    track(replace(tracked(tmp_path), metrics=UPath("memory://bucket/runs/x/metrics.jsonl")), OFFLINE, epoch(1))
    (folder,) = (tmp_path / "wandb").glob("offline-run-*")
    first, _ = capsys.readouterr().out.splitlines()
    host = socket.gethostname()
    assert first == f"base: Weights & Biases writes no object store: `wandb sync` uploads {folder} on {host}"


def test_a_disabled_run_writes_nothing(tmp_path: Path) -> None:
    track(tracked(tmp_path), TrackingConfig(wandb=WandbConfig(mode="disabled")), epoch(1))
    assert [path.name for path in tmp_path.iterdir()] == ["metrics.jsonl"]
