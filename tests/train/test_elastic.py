"""Elastic training on real Ray nodes: a lost one and a new one change nothing in what is learnt."""

import json
import os
import subprocess
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

import losing_a_node
import pytest
import torch
from losing_a_node import CONFIG, JOINS_AT, LOST_AT
from tiny_training import SIZE, scenes, tiny_bundle, training, without_batch_norm
from upath import UPath

from yolo_dist.bundle import open_bundle
from yolo_dist.train.loop import Trainer
from yolo_dist.train.tracking import read_metrics

IMAGES, STEPS = 9, 5

QUICK = {
    "RAY_health_check_period_ms": "500",
    "RAY_health_check_failure_threshold": "2",
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.2",
}
"""Lets Ray notice losses sooner than is wise elsewhere."""


def seen_by_the_workers(folder: Path) -> list[dict[str, Any]]:
    """What they were shown, in the order of time."""
    lines = [json.loads(line) for path in folder.glob("seen-*.jsonl") for line in path.read_text().splitlines()]
    return sorted(lines, key=lambda line: line["time"])


@pytest.mark.timeout(600)
def test_a_lost_node_and_a_new_one_change_nothing_in_what_is_learnt(tmp_path: Path) -> None:
    network = without_batch_norm()
    tiny_bundle(network).save(tmp_path / "start")
    shards = scenes(tmp_path / "train", images=IMAGES)
    alone = Trainer(network, shards, training(**CONFIG), SIZE, threads=0)
    losses = [alone.run_epoch().loss for _ in range(alone.config.epochs)]

    environment = os.environ | QUICK | {"PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, losing_a_node.__file__, str(tmp_path)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "lost").exists()
    assert "going on from the last checkpoint (1 of 3 times)" in done.stdout

    # one worker from the loss to the arrival, two before and after
    seen = seen_by_the_workers(tmp_path)
    workers = {(line["epoch"], line["step"]): line["workers"] for line in seen}
    assert [workers[place] for place in sorted(workers) if LOST_AT <= place < (2, 0)] == [1] * 3
    assert workers[0, 0] == workers[JOINS_AT] == workers[3, STEPS - 1] == 2

    # what the weights remember of an epoch: of each step, what its last attempt was shown
    shown = defaultdict[tuple[int, int], set[tuple[int, tuple[int, ...]]]](set)
    for line in seen:
        if line["workers"] == workers[line["epoch"], line["step"]]:
            shown[line["epoch"], line["step"]].add((line["workers"], tuple(line["samples"])))
    for epoch in range(alone.config.epochs):
        numbers = [n for step in range(STEPS) for _, samples in shown[epoch, step] for n in samples]
        assert sorted(numbers) == list(range(IMAGES))

    lines = read_metrics(UPath(tmp_path / "metrics.jsonl"))
    assert [line["epoch"] for line in lines] == [1, 2, 3, 4]
    for line, loss in zip(lines, losses, strict=True):
        assert line["loss"] == pytest.approx(loss, rel=1e-4)
    start, trained = without_batch_norm(), open_bundle(tmp_path / "out" / "bundle").network
    for mine, undisturbed, first in zip(
        trained.parameters(), alone.average.network.parameters(), start.parameters(), strict=True
    ):
        torch.testing.assert_close(mine - first, undisturbed - first, rtol=1e-2, atol=1e-6)
