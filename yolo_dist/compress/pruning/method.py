"""The pruning methods by name, and what all of them are asked."""

from collections.abc import Callable
from typing import Annotated, Self

from annotated_types import Ge, Gt, Le, Lt
from pydantic import field_validator, model_validator

from yolo_dist.compress.graph import ChannelGraph, Scope
from yolo_dist.compress.importance import MEASURES, Importance
from yolo_dist.compress.importance.measure import MEASURE_OPTIONS
from yolo_dist.compress.importance.measure import OPTIONS as OPTIONS_OF_MEASURE
from yolo_dist.compress.pruning.plan import PrunePlan
from yolo_dist.config import Config

DEFAULT_MULTIPLE = 32
"""Of which the methods that always round make their channel counts."""


class PruneConfig(Config):
    """What to cut, how much of it, and what to mend afterwards."""

    method: str = "normal"
    """Name of a registered method."""
    importance: str = "gamma"
    """Name of a registered measure of what a channel is worth."""
    percent: Annotated[float, Ge(0), Lt(1)] = 0.5
    """Share of the candidates to cut: channels, residual blocks, or both."""
    scope: Scope = "classic"
    """`classic` leaves out what the original left out; `full` cuts wherever the channel graph allows it."""
    shortcuts: Annotated[int, Ge(0)] | None = None
    """Residual blocks to remove by a layer method; by default `percent` of them."""
    round_to: Annotated[int, Ge(1)] | None = None
    """Channels that stay are rounded up to a multiple of this; 32 by default for the methods called regular."""
    layer_keep: Annotated[float, Gt(0), Le(1)] = 0.01
    """Least share of its channels that `slim` leaves a convolution."""
    compensate: bool = True
    """Push the constant that a cut channel still emits into the layers that read it."""
    reestimate_images: Annotated[int, Ge(0)] = 0
    """Training images on which batch-norm statistics are measured anew after the cut; 0 leaves them."""
    calibration_images: Annotated[int, Ge(1)] = 64
    """Training images on which importance `taylor` takes gradients."""
    seed: Annotated[int, Ge(0)] = 0
    """Of importance `random`."""
    force: bool = False
    """Cut although the network is not sparse enough for it."""

    @field_validator("method")
    @classmethod
    def _registered(cls, name: str) -> str:
        if name not in METHODS:
            raise ValueError(f"unknown method; there are {', '.join(sorted(METHODS))}")
        return name

    @field_validator("importance")
    @classmethod
    def _measured(cls, name: str) -> str:
        if name not in MEASURES:
            raise ValueError(f"unknown importance; there are {', '.join(sorted(MEASURES))}")
        return name

    @property
    def needs_training_images(self) -> bool:
        """Whether pruning reads images of the training split."""
        return self.reestimate_images > 0 or "calibration_images" in OPTIONS_OF_MEASURE[self.importance]

    @model_validator(mode="after")
    def _options_that_are_used(self) -> Self:
        for chosen, used, options in (
            (f"method {self.method}", OPTIONS[self.method], METHOD_OPTIONS),
            (f"importance {self.importance}", OPTIONS_OF_MEASURE[self.importance], MEASURE_OPTIONS),
        ):
            given = {name for name in options if getattr(self, name) != type(self).model_fields[name].default}
            if foreign := sorted(given - used):
                raise ValueError(f"{chosen} does not use {' and '.join(foreign)}; it uses {_listed(used)}")
        return self


Method = Callable[[ChannelGraph, Importance, PruneConfig], PrunePlan]
METHODS: dict[str, Method] = {}
OPTIONS: dict[str, frozenset[str]] = {}
"""Method → those of `METHOD_OPTIONS` that it uses."""

METHOD_OPTIONS = frozenset({"shortcuts", "round_to", "layer_keep"})
"""Keys of `PruneConfig` that only some methods use."""


def method(name: str, *options: str) -> Callable[[Method], Method]:
    """Register a planning function under its name in recipes, with the keys of `PruneConfig` that it uses."""

    def register(plan: Method) -> Method:
        METHODS[name] = plan
        OPTIONS[name] = frozenset(options)
        return plan

    return register


def _listed(names: frozenset[str]) -> str:
    return ", ".join(sorted(names)) or "none of these"
