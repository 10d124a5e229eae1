"""The Ray cluster that everything runs on: joined or started once a process."""

import logging
import os
from collections.abc import Mapping, Sequence

import ray
import torch
from ray.exceptions import RayError

from yolo_dist.console import say
from yolo_dist.errors import ConfigError
from yolo_dist.freed_memory import KEEPING_FREED_MEMORY
from yolo_dist.ray_address import set_address

PASSED_ON = ("AWS_", "WANDB_", "YOLO_DIST_")
"""Beginnings of the environment variables that workers get from the driver: credentials never travel otherwise."""

NAMES_OF_PLACES = ("_BUNDLE", "_CACHE", "_DIR", "_FILE", "_PROFILE")
"""Ends of those that do not travel: they name files of this machine; others may have theirs elsewhere."""

HERE = "local"
"""What Ray calls a cluster of this machine alone."""

ROUNDING = 1e-9
"""1 GPU has room for ten workers of 0.1, although 1 // 0.1 is 9."""


def passed_on() -> dict[str, str]:
    """The variables of this environment that other machines' processes get."""
    return {
        name: value
        for name, value in os.environ.items()
        if name.startswith(PASSED_ON) and not name.endswith(NAMES_OF_PLACES)
    }


def cluster_address() -> str:
    """What RAY_ADDRESS says; empty, it says as little to Ray as if it were not set."""
    return os.environ.get("RAY_ADDRESS") or HERE


def joins_a_cluster() -> bool:
    """Whether RAY_ADDRESS names a cluster, of which more nodes may join; else Ray starts on this machine."""
    return cluster_address() != HERE


def join_cluster(needed: dict[str, float], workers: int, option: str, quiet: bool = False) -> None:
    """Join the cluster of RAY_ADDRESS or start Ray on this machine, once.

    Args:
        needed: amount of each resource that a worker needs, such as {"CPU": 2}.
        workers: how many there will be.
        option: where their number is set, for messages.
        quiet: what workers print goes into Ray's logs only.

    Raises:
        ConfigError: this machine has less than what is needed. A cluster is waited for: nodes may join later.
    """
    if not ray.is_initialized():
        os.environ["RAY_OVERRIDE_JOB_RUNTIME_ENV"] = "1"  # a submitted job has some of the variables already
        hook = f"{set_address.__module__}.{set_address.__name__}"
        ray.init(
            address=cluster_address(),
            logging_level=logging.ERROR,
            log_to_driver=not quiet,
            runtime_env={"env_vars": KEEPING_FREED_MEMORY | passed_on(), "worker_process_setup_hook": hook},
        )
    if problem := problem_of_room(resources_of_nodes(), needed, workers):
        if not joins_a_cluster():
            raise ConfigError("cluster", [f"{option}: {problem}"])
        say(f"{option}: {problem}; waiting for more nodes")


def resources_of_nodes() -> list[dict[str, float]]:
    """Resources of each node of the cluster that would be joined, or of this machine; starts nothing.

    Raises:
        ConfigError: no cluster answers at RAY_ADDRESS.
    """
    if not ray.is_initialized():
        if not joins_a_cluster():
            return [{"CPU": os.cpu_count() or 1, "GPU": torch.cuda.device_count()}]
        try:
            join_cluster({}, 0, "RAY_ADDRESS", quiet=True)
        except (ConnectionError, RuntimeError, ValueError, RayError) as error:
            reason = " ".join(str(error).split())
            raise ConfigError("RAY_ADDRESS", [f"no cluster answers: {reason}"]) from None
    return [node["Resources"] for node in ray.nodes() if node["Alive"]]


def room_for(nodes: Sequence[Mapping[str, float]], needed: Mapping[str, float]) -> int:
    """Workers that fit on nodes, each of them on one node."""
    parts = {name: amount for name, amount in needed.items() if amount}
    return sum(min(int(node.get(name, 0) / amount + ROUNDING) for name, amount in parts.items()) for node in nodes)


def problems_of_workers(needed: Mapping[str, float], workers: int, option: str) -> list[str]:
    """Why so many workers would wait for ever on the cluster that would be joined, or on this machine; starts nothing.

    Args:
        needed: amount of each resource that a worker needs.
        workers: how many there will be; for none nobody is asked.
        option: where their number is set, for the message.
    """
    if not workers:
        return []
    try:
        problem = problem_of_room(resources_of_nodes(), needed, workers)
    except ConfigError as error:
        return [f"{error.source}: {problem}" for problem in error.problems]
    return [f"{option}: {problem}"] if problem else []


def problem_of_room(nodes: Sequence[Mapping[str, float]], needed: Mapping[str, float], workers: int) -> str | None:
    """Why so many workers would wait for ever for what each needs; None where there is room for all."""
    parts = {name: amount for name, amount in needed.items() if amount}
    room = room_for(nodes, parts) if parts else workers
    if room >= workers:
        return None
    each = " and ".join(f"{amount:g} {name}s" for name, amount in parts.items())
    most = " and ".join(f"{max((node.get(name, 0) for node in nodes), default=0):g} {name}s" for name in parts)
    return (
        f"{workers} workers of {each} do not fit on {len(nodes)} nodes of up to {most}, which have room for {room}; "
        "ask for less, or set RAY_ADDRESS to a larger cluster"
    )
