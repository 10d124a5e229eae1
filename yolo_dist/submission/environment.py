"""What a job's processes find on every node: packages with pinned versions, and variables passed on by name."""

import os
from collections.abc import Iterable
from importlib.metadata import requires, version

from packaging.requirements import Requirement

from yolo_dist.errors import ConfigError
from yolo_dist.ray_cluster import passed_on

DISTRIBUTION = "yolo-dist"
LEFT_OUT = ("ray",)
"""A cluster has its own, which a job cannot replace."""
SECONDS_TO_STOP = 120
"""How long a job that is stopped may take for its step and checkpoint; Ray's own is 3."""


def pinned_requirements() -> list[str]:
    """What this package needs, in the versions that are installed here, without the kind of build (+cpu, +cu130)."""
    needed = (Requirement(text) for text in requires(DISTRIBUTION) or [])
    wanted = (one for one in needed if one.name not in LEFT_OUT and (one.marker is None or one.marker.evaluate()))
    return sorted(f"{one.name}=={version(one.name).partition('+')[0]}" for one in wanted)


def variables(names: Iterable[str] | None) -> list[str]:
    """Names of the variables that a job gets from here.

    Without `names` those of `ray_cluster.passed_on`.

    Raises:
        ConfigError: one of them is not set.
    """
    if names is None:
        return sorted(passed_on())
    chosen = sorted(set(names))
    if missing := [name for name in chosen if name not in os.environ]:
        raise ConfigError("--env", [f"{name} is not set here; export it before, or leave it out" for name in missing])
    return chosen
