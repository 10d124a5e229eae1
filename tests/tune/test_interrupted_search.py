"""The real command over a cluster that outlives it: killed in the middle of its trials, it goes on with `--resume`."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml
from ray_head import RayHead, ray_head
from searches import prepare

SPACE = {
    "name": "tiny-search",
    "recipe": "recipe.yaml",
    "space": {"pruned.percent": {"grid": [0.2, 0.3]}},
    "objectives": {"map50": "maximise", "parameters": "minimise"},
    "searcher": "grid",
    "concurrent": 1,
    "overrides": ["cluster.workers=2"],
}


@pytest.fixture(scope="module")
def head(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RayHead]:
    with ray_head(tmp_path_factory.mktemp("head"), cpus=4) as head:
        yield head


@contextmanager
def tune(folder: Path, head: RayHead, *options: str) -> Iterator[subprocess.Popen[str]]:
    """The command, whose lines come as it says them."""
    command = [sys.executable, "-u", "-m", "yolo_dist", "tune", "space.yaml", *options]
    environment = os.environ | head.environment() | {"RAY_ADDRESS": head.address}
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    with subprocess.Popen(command, cwd=folder, env=environment, **pipes) as process:
        try:
            yield process
        finally:
            process.kill()


def began(folder: Path) -> dict[str, float]:
    """When each finished trial began."""
    (results,) = folder.glob("**/tune.json")
    trials = json.loads(results.read_text())["trials"]
    return {trial["id"]: trial["began"] for trial in trials if trial["state"] == "finished"}


@pytest.mark.timeout(600)
def test_killed_in_a_trial_of_two_workers_it_does_what_is_finished_once(head: RayHead, tmp_path: Path) -> None:
    prepare(tmp_path)
    (tmp_path / "space.yaml").write_text(yaml.safe_dump(SPACE))
    with tune(tmp_path, head) as driver:
        assert driver.stdout is not None
        assert any("1 of 2 trials" in line for line in driver.stdout)
        assert any(line.endswith(": tuned …\n") for line in driver.stdout)
    first = began(tmp_path)
    assert len(first) == 1

    with tune(tmp_path, head, "--resume") as driver:
        said = driver.communicate()[0]
        assert driver.returncode == 0, said
    every = began(tmp_path)
    assert len(every) == 2
    assert {trial: every[trial] for trial in first} == first
    stages = [path.read_text() for path in tmp_path.glob("**/trials/*/stages/base/stage.json")]
    assert len(stages) == 2
    assert stages[0] == stages[1]  # seconds too: done once
