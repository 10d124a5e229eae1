"""Event files for TensorBoard, read back."""

import io
import struct
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from tensorboardX.proto.event_pb2 import Event
from tracked import GAUGE, epoch, outcome, tracked
from upath import UPath

from yolo_dist.train.tracking import TrackedStage, Tracker, TrackingConfig, track_outcome

ON = TrackingConfig(tensorboard=True)


def events(folder: UPath | Path) -> Iterator[Event]:
    """Events of all files of a folder, oldest first: length, its checksum, event, its checksum (TFRecord)."""
    found = []
    for file in folder.iterdir():
        content, place = file.read_bytes(), 0
        while place < len(content):
            (length,) = struct.unpack_from("<Q", content, place)
            event = Event()
            event.ParseFromString(content[place + 12 : place + 12 + length])
            place += 16 + length
            found.append(event)
    return iter(sorted(found, key=lambda event: event.wall_time))


def scalars(folder: UPath | Path) -> dict[str, list[tuple[int, float]]]:
    """Tag → (step, value), as TensorBoard shows them: a restart takes back what was at or after its step."""
    shown: dict[str, list[tuple[int, float]]] = {}
    for event in events(folder):
        if event.HasField("session_log"):
            shown = {tag: [point for point in points if point[0] < event.step] for tag, points in shown.items()}
        for value in event.summary.value:
            if value.HasField("simple_value"):
                shown.setdefault(value.tag, []).append((event.step, value.simple_value))
    return shown


def log(stage: TrackedStage, *lines: dict[str, Any]) -> None:
    with Tracker(stage, ON) as tracker:
        for line in lines:
            tracker.log(line)


def test_an_epoch_arrives_with_every_number(tmp_path: Path) -> None:
    log(tracked(tmp_path), epoch(1), epoch(2, map=0.25, map50=0.5, per_class={"cat": {"map50": 0.25}}))
    found = scalars(tmp_path / "tensorboard" / "base")
    assert found["loss/objectness"] == [(1, 2.0), (2, 2.0)]
    assert [rate for _, rate in found["learning_rates/biases"]] == pytest.approx([0.04, 0.04])
    assert found["map50"] == [(2, 0.5)]
    assert found["per_class/cat/map50"] == [(2, 0.25)]


def test_the_histogram_of_a_gauge_arrives(tmp_path: Path) -> None:
    log(tracked(tmp_path), epoch(3, gauge=GAUGE))
    values = [value for event in events(tmp_path / "tensorboard" / "base") for value in event.summary.value]
    (histogram,) = [value.histo for value in values if value.tag == "gauge/histogram"]
    assert list(histogram.bucket) == GAUGE["histogram"]["counts"]
    assert list(histogram.bucket_limit) == GAUGE["histogram"]["edges"][1:]
    assert histogram.num == 4


def test_a_stage_that_goes_on_replaces_what_it_does_again(tmp_path: Path) -> None:
    log(tracked(tmp_path), epoch(1), epoch(2), epoch(3))
    log(tracked(tmp_path), epoch(2, learning_rate=0.5))
    assert scalars(tmp_path / "tensorboard" / "base")["learning_rate"] == [(1, pytest.approx(0.01)), (2, 0.5)]


def test_a_stage_that_starts_anew_leaves_nothing_of_the_old_one(tmp_path: Path) -> None:
    log(tracked(tmp_path), epoch(1), epoch(2))
    log(tracked(tmp_path), epoch(1, learning_rate=0.5))
    assert scalars(tmp_path / "tensorboard" / "base")["learning_rate"] == [(1, 0.5)]


def test_an_outcome_arrives_beside_the_epochs_with_its_images(tmp_path: Path) -> None:
    stage = tracked(tmp_path)
    log(stage, epoch(1))
    track_outcome(stage, ON, outcome(tmp_path / "stage"))
    folder = tmp_path / "tensorboard" / "base"
    found = scalars(folder)
    assert found["loss/total"] == [(1, 3.5)]
    assert found["result/map50"] == [(0, 0.75)]
    (image,) = [value.image for event in events(folder) for value in event.summary.value if value.HasField("image")]
    assert Image.open(io.BytesIO(image.encoded_image_string)).size == (4, 6)


def test_the_outcome_of_a_stage_without_epochs_replaces_an_older_one(tmp_path: Path) -> None:
    stage, made = tracked(tmp_path, kind="prune"), outcome(tmp_path / "stage")
    for map50 in (0.25, 0.5):
        track_outcome(stage, ON, replace(made, numbers={"result/map50": map50}))
    assert scalars(tmp_path / "tensorboard" / "base")["result/map50"] == [(0, 0.5)]


def test_event_files_go_to_object_stores_too(tmp_path: Path) -> None:
    stage = TrackedStage(UPath("memory://tensorboard-test/run/metrics.jsonl"), "run", "base")
    log(stage, epoch(1), epoch(2))
    track_outcome(stage, ON, outcome(tmp_path))
    found = scalars(UPath("memory://tensorboard-test/run/tensorboard/base"))
    assert [step for step, _ in found["loss/total"]] == [1, 2]
    assert found["result/map50"] == [(0, 0.75)]


def test_what_cannot_be_written_does_not_end_the_stage(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "tensorboard").write_text("a file where the folder shall go")
    log(tracked(tmp_path), epoch(1), epoch(2))
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(" (")[0] for line in lines if "failed" in line] == ["base: TensorBoard failed"]
    assert len(lines) == 3
