"""The Ray cluster that everything runs on: joined or started once a process."""

import logging
import os

import ray
import torch

from yolo_dist.errors import ConfigError
from yolo_dist.freed_memory import KEEPING_FREED_MEMORY
from yolo_dist.ray_address import set_address

PASSED_ON = ("AWS_", "WANDB_", "YOLO_DIST_")
"""Beginnings of the environment variables that workers get from the driver: credentials never travel otherwise."""

NAMES_OF_PLACES = ("_BUNDLE", "_CACHE", "_DIR", "_FILE", "_PROFILE")
"""Ends of those that do not travel: they name files of this machine; others may have theirs elsewhere."""


def passed_on() -> dict[str, str]:
    """The variables of this environment that other machines' processes get."""
    return {
        name: value
        for name, value in os.environ.items()
        if name.startswith(PASSED_ON) and not name.endswith(NAMES_OF_PLACES)
    }


def join_cluster(needed: dict[str, float], workers: int, option: str, quiet: bool = False) -> None:
    """Join the cluster of RAY_ADDRESS or start Ray on this machine, once.

    Args:
        needed: amount of each resource that a worker needs, such as {"CPU": 2}.
        workers: how many there will be.
        option: where their number is set, for messages.
        quiet: what workers print goes into Ray's logs only.

    Raises:
        ConfigError: this machine has less than what is needed.
    """
    address = os.environ.get("RAY_ADDRESS", "local")
    if not ray.is_initialized():
        os.environ["RAY_OVERRIDE_JOB_RUNTIME_ENV"] = "1"  # a submitted job has some of the variables already
        hook = f"{set_address.__module__}.{set_address.__name__}"
        ray.init(
            address=address,
            logging_level=logging.ERROR,
            log_to_driver=not quiet,
            runtime_env={"env_vars": KEEPING_FREED_MEMORY | passed_on(), "worker_process_setup_hook": hook},
        )
    if address == "local":
        _require(needed, workers, ray.cluster_resources(), option)


def _require(needed: dict[str, float], workers: int, have: dict[str, float], option: str) -> None:
    for resource, each in needed.items():
        if each * workers > have.get(resource, 0):
            raise ConfigError(
                "cluster",
                [
                    f"{workers} workers need {each * workers:g} {resource}s, this machine has "
                    f"{have.get(resource, 0):g}; lower {option}, or set RAY_ADDRESS to a larger cluster"
                ],
            )


def capacity() -> dict[str, float]:
    """Resources of the cluster that would be joined, or of this machine; starts nothing.

    Raises:
        ConfigError: no cluster answers at RAY_ADDRESS.
    """
    if ray.is_initialized():
        return dict(ray.cluster_resources())
    if "RAY_ADDRESS" in os.environ:
        try:
            join_cluster({}, 0, "RAY_ADDRESS", quiet=True)
        except ConnectionError as error:
            reason = " ".join(str(error).split())
            raise ConfigError("RAY_ADDRESS", [f"no cluster answers: {reason}"]) from None
        return dict(ray.cluster_resources())
    return {"CPU": os.cpu_count() or 1, "GPU": torch.cuda.device_count()}
