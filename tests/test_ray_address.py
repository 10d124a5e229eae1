"""Every process of Ray's runs this first."""

import os
import subprocess
import sys
from types import SimpleNamespace

import pytest
import ray

from yolo_dist.ray_address import set_address


@pytest.mark.parametrize(
    ("before", "after"),
    [
        pytest.param(None, "10.0.0.1:6379", id="the cluster that started the process"),
        pytest.param("10.0.0.2:6379", "10.0.0.2:6379", id="one that somebody has named"),
    ],
)
def test_a_process_knows_its_cluster(before: str | None, after: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", before or "")
    if before is None:
        monkeypatch.delenv("RAY_ADDRESS")
    monkeypatch.setattr(ray, "get_runtime_context", lambda: SimpleNamespace(gcs_address="10.0.0.1:6379"))
    set_address()
    assert os.environ["RAY_ADDRESS"] == after


def test_it_costs_a_process_that_needs_no_torch_no_torch() -> None:
    code = "import sys, yolo_dist.ray_address; print(sorted({'torch', 'ray.train'} & set(sys.modules)))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"
