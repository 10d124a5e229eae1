"""The pruning methods by name, and what all of them are asked."""

from collections.abc import Callable, Mapping
from typing import Annotated

import numpy as np
from annotated_types import Ge, Lt
from numpy.typing import NDArray
from pydantic import field_validator

from yolo_dist.compress.graph import ChannelGraph, Scope
from yolo_dist.compress.pruning.plan import PrunePlan
from yolo_dist.config import Config

Importance = Mapping[int, NDArray[np.float32]]
"""Convolution → importance of each of its channels, float32 [C], ≥ 0."""


class PruneConfig(Config):
    """What to cut, how much of it, and what to mend afterwards."""

    method: str = "normal"
    """Name of a registered method."""
    percent: Annotated[float, Ge(0), Lt(1)] = 0.5
    """Share of the candidates' channels to cut."""
    scope: Scope = "classic"
    """`classic` leaves out what the original left out; `full` cuts wherever the channel graph allows it."""
    compensate: bool = True
    """Push the constant that a cut channel still emits into the layers that read it."""
    reestimate_images: Annotated[int, Ge(0)] = 0
    """Training images on which batch-norm statistics are measured anew after the cut; 0 leaves them."""
    force: bool = False
    """Cut although the network is not sparse enough for it."""

    @field_validator("method")
    @classmethod
    def _registered(cls, name: str) -> str:
        if name not in METHODS:
            raise ValueError(f"unknown method; there are {', '.join(sorted(METHODS))}")
        return name


Method = Callable[[ChannelGraph, Importance, PruneConfig], PrunePlan]
METHODS: dict[str, Method] = {}


def method(name: str) -> Callable[[Method], Method]:
    """Register a planning function under its name in recipes."""

    def register(plan: Method) -> Method:
        METHODS[name] = plan
        return plan

    return register
