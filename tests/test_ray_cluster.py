"""Room for workers: each of them fits on one node, or waits for ever."""

from typing import Any

import pytest
import ray

from yolo_dist import ray_cluster
from yolo_dist.ray_cluster import join_cluster, problem_of_room, problems_of_workers, resources_of_nodes, room_for

FOUR_CORES_TWICE = [{"CPU": 4.0}, {"CPU": 4.0, "GPU": 1.0}]


@pytest.mark.parametrize(
    ("needed", "room"),
    [
        pytest.param({"CPU": 4, "GPU": 0}, 2, id="a node each"),
        pytest.param({"CPU": 3}, 2, id="what is left of two nodes makes no third"),
        pytest.param({"CPU": 8}, 0, id="as much as both together have"),
        pytest.param({"CPU": 1, "GPU": 0.5}, 2, id="only where the GPU is"),
        pytest.param({"GPU": 0.1}, 10, id="tenths"),
    ],
)
def test_workers_are_counted_node_by_node(needed: dict[str, float], room: int) -> None:
    assert room_for(FOUR_CORES_TWICE, needed) == room
    assert problem_of_room(FOUR_CORES_TWICE, needed, room) is None


def test_workers_that_fit_no_single_node_are_told_in_one_line() -> None:
    assert problem_of_room(FOUR_CORES_TWICE, {"CPU": 8, "GPU": 0}, 1) == (
        "1 workers of 8 CPUs do not fit on 2 nodes of up to 4 CPUs, which have room for 0; "
        "ask for less, or set RAY_ADDRESS to a larger cluster"
    )


@pytest.mark.parametrize("address", [None, "", "local"])
def test_this_machine_is_looked_at_without_starting_ray(address: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", lambda **_: pytest.fail("nothing was to be started"))
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    if address is not None:
        monkeypatch.setenv("RAY_ADDRESS", address)
    (problem,) = problems_of_workers({"CPU": 4096}, 1, "--workers")
    assert problem.startswith("--workers: 1 workers of 4096 CPUs do not fit on 1 nodes of up to ")


def test_nobody_is_asked_for_the_room_of_no_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_cluster, "resources_of_nodes", lambda: pytest.fail("there is nothing to ask"))
    assert problems_of_workers({"CPU": 4096}, 0, "--workers") == []


def test_an_address_that_leads_nowhere_is_a_problem_like_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setenv("RAY_ADDRESS", "nowhere")
    (problem,) = problems_of_workers({"CPU": 1}, 1, "--workers")
    assert problem.startswith("RAY_ADDRESS: no cluster answers: ")


@pytest.fixture
def joined(monkeypatch: pytest.MonkeyPatch) -> None:
    """A cluster of two nodes that live and a large one that does not."""
    nodes: list[dict[str, Any]] = [{"Alive": True, "Resources": resources} for resources in FOUR_CORES_TWICE]
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    monkeypatch.setattr(ray, "is_initialized", lambda: True)
    monkeypatch.setattr(ray, "nodes", lambda: [*nodes, {"Alive": False, "Resources": {"CPU": 64.0}}])


@pytest.mark.usefixtures("joined")
def test_a_node_that_is_lost_has_no_room() -> None:
    assert resources_of_nodes() == FOUR_CORES_TWICE


@pytest.mark.usefixtures("joined")
def test_who_waits_for_nodes_to_join_a_cluster_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr(ray_cluster, "say", said.append)
    join_cluster({"CPU": 4}, 2, "cluster.workers")
    assert said == []
    join_cluster({"CPU": 8}, 1, "cluster.workers")
    (line,) = said
    assert line.startswith("cluster.workers: 1 workers of 8 CPUs do not fit")
    assert line.endswith("waiting for more nodes")
