"""The doctor of clusters: on a real one, and on nodes that say what they are told to."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import ray_head
from object_store_server import ObjectStore

from yolo_dist import cluster_doctor, node_probe
from yolo_dist.cluster_doctor import Node, examine_cluster
from yolo_dist.doctor import PACKAGES, Finding
from yolo_dist.errors import ClusterError

HERE = node_probe.look(["yolo-dist", *PACKAGES], None)
PLENTY = {"object_store_memory": 2.0**30, "CPU": 4.0}


def node(name: str = "a", resources: dict[str, float] | None = None, **changes: Any) -> Node:
    """A node on which nothing is wrong, but for what is changed."""
    return Node(name, name, PLENTY | (resources or {}), HERE | {"memory": 2**40, "disk": 2**40} | changes)


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory, s3_server: ObjectStore) -> Iterator[dict[str, Any]]:
    """What the command says about a real head with a token and a storage, from a process of its own."""
    with ray_head.ray_head(tmp_path_factory.mktemp("head")) as head:
        program = "import sys; from yolo_dist.cli import main; sys.argv[0] = 'yolo-dist'; main()"
        words = ["doctor", "--address", head.address, "--storage", f"{s3_server.url}/runs", "--json"]
        environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
        environment |= head.environment() | s3_server.environment()
        command = [sys.executable, "-c", program, *words]
        ran = subprocess.run(command, capture_output=True, text=True, env=environment)
        wrong = subprocess.run(command, capture_output=True, text=True, env=environment | head.environment("x" * 32))
        yield {"ran": ran, "wrong": wrong, "head": head}


def test_a_real_cluster_is_looked_at_from_all_sides(answers: dict[str, Any]) -> None:
    assert answers["ran"].returncode == 0, answers["ran"].stderr
    found = {finding["what"]: finding for finding in json.loads(answers["ran"].stdout)}
    names = ["nodes", "versions", "packages", "memory", "disk", "object store", "GPUs", "storage", "all-reduce"]
    assert list(found) == names
    assert found["nodes"]["found"] == "1 alive with 2 CPUs and 0 GPUs together"
    assert found["packages"] == {"what": "packages", "found": "all are there", "ok": True, "remedy": ""}
    assert found["versions"]["found"].startswith("as here: Python 3.")
    assert found["storage"]["found"] == "every node writes and reads s3://bucket/runs"
    assert found["object store"]["found"].endswith(" has 95 MiB")
    assert "--object-store-memory" in found["object store"]["remedy"]
    assert found["all-reduce"]["found"].startswith("35 MB within ")
    assert found["all-reduce"]["found"].endswith(" ms")


def test_a_cluster_that_refuses_the_token_is_named(answers: dict[str, Any]) -> None:
    assert answers["wrong"].returncode == 2
    (line,) = [line for line in answers["wrong"].stderr.splitlines() if line.startswith("error: ")]
    assert line.startswith(f"error: {answers['head'].address}: cannot be joined: ")
    assert "RAY_AUTH_TOKEN" in line


def test_a_job_servers_url_is_no_ray_address() -> None:
    with pytest.raises(ClusterError, match="doctor needs a Ray address such as"):
        examine_cluster("http://127.0.0.1:8265")


def test_a_node_of_other_versions_is_named_with_both() -> None:
    other = node("b", versions=HERE["versions"] | {"torch": "1.0", "wandb": None})
    found = cluster_doctor._versions([node(), other])
    assert found.found == f"b has torch 1.0, here is {HERE['versions']['torch']}"
    assert not found.ok
    assert cluster_doctor._missing([node(), other]).found == "b lacks wandb"
    assert cluster_doctor._versions([node()]).ok
    assert cluster_doctor._missing([node()]).ok


def test_a_node_with_little_room_is_named() -> None:
    nodes = [node(), node("b", memory=2**30, disk=2**29)]
    assert cluster_doctor._free(nodes, "memory", 2**31, "x") == Finding("memory", "b has 1.0 GiB free", False, "x")
    assert cluster_doctor._free(nodes, "disk", 2**31, "x") == Finding("disk", "b has 0.5 GiB free", False, "x")
    assert cluster_doctor._free(nodes[:1], "disk", 2**31, "x").ok
    assert cluster_doctor._free([node(memory=None)], "memory", 2**31, "x").found == "unknown"
    assert cluster_doctor._object_stores([node(), node("b", {"object_store_memory": 2.0**26})]).found == "b has 64 MiB"


@pytest.mark.parametrize(
    ("resources", "changes", "problem"),
    [
        ({"GPU": 2.0}, {"gpus": 2, "cuda": "13.0"}, None),
        ({"GPU": 2.0}, {"gpus": 2, "cuda": None}, "b offers 2 GPUs, its torch is a CPU build"),
        ({}, {"gpus": 2, "cuda": "13.0"}, "b has 2 GPUs, Ray offers 0"),
        ({}, {"gpus": 0, "cuda": None}, None),
    ],
)
def test_gpus_that_nobody_can_use_are_named(
    resources: dict[str, float], changes: dict[str, Any], problem: str | None
) -> None:
    found = cluster_doctor._gpus([node("b", resources, **changes)])
    assert found.ok == (problem is None)
    assert problem is None or found.found == problem


def test_nodes_that_are_lost_or_silent_are_named() -> None:
    silent = Node("c", "c", PLENTY, None)
    found = cluster_doctor._found_nodes([node(), silent], ["d"])
    assert found.found == "2 alive with 8 CPUs and 0 GPUs together; c did not answer; d was lost"
    assert not found.ok


def test_a_storage_that_a_node_cannot_write_is_told_with_the_reason(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    state = node_probe.look([], str(tmp_path / "file" / "below"))
    found = cluster_doctor._storage([node(), node("b", storage=state["storage"])], "x")
    assert found.found.startswith("b: NotADirectoryError: ")
    assert node_probe.look([], str(tmp_path / "new"))["storage"] is None
    assert not (tmp_path / "new").exists()
