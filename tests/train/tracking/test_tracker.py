"""Tracking: metrics.jsonl and the line a person reads."""

import json
from pathlib import Path
from typing import Any

import pytest
from tracked import GAUGE, epoch, tracked
from upath import UPath

from yolo_dist.train.tracking import TrackedStage, Tracker, TrackingConfig, describe, read_metrics


def tracker(path: Path, stage: str, config: TrackingConfig | None = None) -> Tracker:
    return Tracker(tracked(path, stage), config or TrackingConfig())


def logged(path: Path) -> list[tuple[str, int, float]]:
    lines = [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]
    return [(line["stage"], line["epoch"], line["learning_rate"]) for line in lines]


def test_every_epoch_is_one_line_of_json(tmp_path: Path) -> None:
    with tracker(tmp_path, "base") as base:
        base.log(epoch(1))
        base.log(epoch(2, map50=0.5, map=0.25))
    lines = read_metrics(UPath(tmp_path / "metrics.jsonl"))
    assert lines == [{"stage": "base", **epoch(1)}, {"stage": "base", **epoch(2, map50=0.5, map=0.25)}]


def test_a_repeated_epoch_replaces_its_line_and_leaves_other_stages(tmp_path: Path) -> None:
    for stage in ("base", "sparse"):
        with tracker(tmp_path, stage) as first:
            for number in (1, 2):
                first.log(epoch(number))
    with tracker(tmp_path, "sparse") as again:
        again.log(epoch(2, learning_rate=0.5))
    assert logged(tmp_path) == [("base", 1, 0.01), ("base", 2, 0.01), ("sparse", 1, 0.01), ("sparse", 2, 0.5)]


def test_a_stage_that_goes_on_from_a_checkpoint_drops_what_it_does_again(tmp_path: Path) -> None:
    with tracker(tmp_path, "base") as first:
        for number in (1, 2, 3):
            first.log(epoch(number))
    with tracker(tmp_path, "base") as second:
        second.log(epoch(2, learning_rate=0.5))
        assert logged(tmp_path) == [("base", 1, 0.01), ("base", 2, 0.5)]


def test_a_stage_done_again_with_fewer_epochs_leaves_none_of_the_old_ones(tmp_path: Path) -> None:
    with tracker(tmp_path, "base") as first:
        for number in (1, 2, 3):
            first.log(epoch(number))
    with tracker(tmp_path, "base") as second:
        second.log(epoch(1, learning_rate=0.5))
    assert logged(tmp_path) == [("base", 1, 0.5)]


def test_there_are_no_metrics_where_nothing_ran(tmp_path: Path) -> None:
    assert read_metrics(UPath(tmp_path / "metrics.jsonl")) == []


def test_metrics_go_to_object_stores_too() -> None:
    metrics = UPath("memory://tracking/run/metrics.jsonl")
    with Tracker(TrackedStage(metrics, "run", "base"), TrackingConfig()) as base:
        base.log(epoch(1))
    assert read_metrics(metrics) == [{"stage": "base", **epoch(1)}]


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        pytest.param(
            {},
            "base  epoch 3/20  loss 3.500 (box 1.000, objectness 2.000, class 0.500)  lr 0.01000  42 images/s  "
            "1:15 left",
            id="an ordinary epoch",
        ),
        pytest.param({"map50": 0.5123, "map": 0.25}, "1:15 left  mAP50 0.512, mAP 0.250", id="an evaluated one"),
        pytest.param(
            {"map50": 0.5, "map": 0.25, "sources": {"street": {"map50": 0.4}, "home": {"map50": 0.6}}},
            "mAP50 0.500, mAP 0.250  street 0.400  home 0.600",
            id="of a mixture",
        ),
        pytest.param({"gauge": GAUGE}, "1:15 left  γ<0.01: 25%, ready to 25%", id="a sparse one"),
    ],
)
def test_an_epoch_as_a_line_of_text(more: dict[str, Any], expected: str) -> None:
    assert describe("base", epoch(3, **more)).endswith(expected)


def test_the_person_who_watches_sees_each_epoch(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with tracker(tmp_path, "base") as base:
        base.log(epoch(3))
    assert capsys.readouterr().out == describe("base", epoch(3)) + "\n"
