"""The pruning methods by name, and what all of them are asked."""

from collections.abc import Callable, Collection
from typing import Annotated, Self

from annotated_types import Ge, Gt, Le, Lt
from pydantic import field_validator, model_validator

from yolo_dist.compress.graph import ChannelGraph, Scope
from yolo_dist.compress.importance import CALIBRATED, MEASURES, RELATIVE, Importance
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
    percents: tuple[Annotated[float, Ge(0), Lt(1)], ...] | None = None
    """Of `layerwise`: the share to cut of each set of channels, in the order in which `prune --explain` shows them."""
    scope: Scope = "classic"
    """`classic` leaves out what the original left out; `full` cuts wherever the channel graph allows it."""
    shortcuts: Annotated[int, Ge(0)] | None = None
    """Residual blocks to remove by a layer method; by default `percent` of them, rounded down: never the last."""
    round_to: Annotated[int, Ge(1)] | None = None
    """Channels that stay are rounded up to a multiple of this; 32 by default for the methods called regular."""
    layer_keep: Annotated[float, Gt(0), Le(1)] = 0.01
    """Least share of its channels that `slim` leaves a convolution."""
    target_parameters: Annotated[float, Gt(0)] | None = None
    """In place of a percent: parameters that may stay; up to 1 a share of all."""
    target_macs: Annotated[float, Gt(0)] | None = None
    """In place of a percent: multiply-accumulate operations an image that may stay; up to 1 a share of all."""
    target_latency_ms: Annotated[float, Gt(0)] | None = None
    """In place of a percent: milliseconds an image, the network alone on one thread, measured where the stage runs."""
    max_map_drop: Annotated[float, Ge(0), Lt(1)] | None = None
    """In place of a percent: how far mAP50 on the validation split may fall before any fine-tuning."""
    candidates: Annotated[int, Ge(1)] = 50
    """Random shapes of which `eagle-eye` takes that of the highest validation mAP."""
    seed: Annotated[int, Ge(0)] = 0
    """Seed of what is random: the shapes of `eagle-eye`, importance `random`."""
    compensate: bool = True
    """Push the constants that cut channels and removed blocks still emit into the layers that read them."""
    reestimate_images: Annotated[int, Ge(0)] = 0
    """Training images on which batch-norm statistics are measured anew after the cut; 0 leaves them."""
    calibration_images: Annotated[int, Ge(1)] = 64
    """Training images on which importance `taylor` takes gradients."""
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
        return self.reestimate_images > 0 or self.importance in CALIBRATED

    @model_validator(mode="after")
    def _options_that_are_used(self) -> Self:
        fields = type(self).model_fields
        given = {name for name, field in fields.items() if getattr(self, name) != field.default}
        used = OPTIONS[self.method]
        if foreign := sorted(given & METHOD_OPTIONS - used):
            raise ValueError(f"method {self.method} does not use {' and '.join(foreign)}; it uses {_listed(used)}")
        if "calibration_images" in given and self.importance not in CALIBRATED:
            raise ValueError(
                f"importance {self.importance} does not use calibration_images; {_listed(CALIBRATED)} does"
            )
        if "shortcuts" in used and self.importance in RELATIVE:
            raise ValueError(
                f"importance {self.importance} has the same mean in every layer, so method {self.method} cannot rank "
                f"blocks by it; there are {_listed(MEASURES.keys() - RELATIVE)}"
            )
        targets = [name for name in TARGETS if getattr(self, name) is not None]
        if len(targets) > 1:
            raise ValueError(f"{' and '.join(targets)} are one target too many; give one")
        if targets and self.percent != fields["percent"].default:
            raise ValueError(f"{targets[0]} stands in place of percent; give one of them")
        amounts = [*targets, *sorted(given & {"percent"})]
        if self.shortcuts is not None and amounts and not self.cuts_channels:
            raise ValueError(f"method {self.method} takes shortcuts in place of {amounts[0]}; give one of them")
        if targets and not self.draws_candidates and "percent" not in used:
            raise ValueError(f"{targets[0]} needs a method with a percent, and {self.method} has none")
        if "percents" in used and not self.percents:
            raise ValueError(f"{self.method} needs percents, a share for each set of channels: see prune --explain")
        if self.draws_candidates and not self.reestimate_images:
            raise ValueError(f"{self.method} judges networks after re-estimation; set reestimate_images, such as 64")
        return self

    @property
    def cuts_channels(self) -> bool:
        """Whether the method cuts channels, and not blocks alone."""
        return "round_to" in OPTIONS[self.method]

    @property
    def share_of_blocks(self) -> bool:
        """Whether residual blocks go by `percent`, which never removes the last."""
        return "shortcuts" in OPTIONS[self.method] and self.shortcuts is None

    @property
    def draws_candidates(self) -> bool:
        """Whether the method draws shapes of which the most accurate is taken."""
        return "candidates" in OPTIONS[self.method]

    @property
    def measures_accuracy(self) -> bool:
        """Whether what is cut is decided by accuracy after the cut, so that no readiness need be guessed from γ."""
        return self.draws_candidates or self.max_map_drop is not None


Method = Callable[[ChannelGraph, Importance, PruneConfig], PrunePlan]
METHODS: dict[str, Method] = {}
OPTIONS: dict[str, frozenset[str]] = {}
"""Method → those of `METHOD_OPTIONS` that it uses."""

TARGETS = ("target_parameters", "target_macs", "target_latency_ms", "max_map_drop")

METHOD_OPTIONS = frozenset({"percent", "percents", "shortcuts", "round_to", "layer_keep", "candidates"})
"""Keys of `PruneConfig` that only some methods use."""


def method(name: str, *options: str) -> Callable[[Method], Method]:
    """Register a planning function under its name in recipes, with the keys of `PruneConfig` that it uses."""

    def register(plan: Method) -> Method:
        METHODS[name] = plan
        OPTIONS[name] = frozenset(options)
        return plan

    return register


def _listed(names: Collection[str]) -> str:
    return ", ".join(sorted(names)) or "none of these"
