"""What a training stage learns from a teacher."""

from collections.abc import Mapping
from typing import Annotated, Self

from annotated_types import Ge, Gt
from pydantic import Field, field_validator, model_validator

from yolo_dist.compress.distillation.strategy import STRATEGIES, Strategy
from yolo_dist.config import Config


class DistillationConfig(Config):
    """Which teacher, and by what the student is compared with it."""

    teacher: Annotated[str, Field(min_length=1)]
    """Id of an earlier stage, or the path or URL of a bundle."""
    strategy: int = 5
    """Number of a registered strategy."""
    temperature: Annotated[float, Gt(0)] = 3.0
    """Divides logits before they are compared: the higher, the more the unlikely counts."""
    weights: dict[str, Annotated[float, Ge(0)]] | None = None
    """Term → its weight in the loss, in place of the strategy's own."""
    layers: dict[Annotated[int, Ge(0)], Annotated[int, Ge(0)]] | None = None
    """Layer of the student → layer of the teacher, whose features are compared; by default all convolutions before
    those of the heads, each with the one it was before layers were pruned."""

    @field_validator("strategy")
    @classmethod
    def _registered(cls, number: int) -> int:
        if number not in STRATEGIES:
            raise ValueError(f"unknown strategy; there are {', '.join(map(str, sorted(STRATEGIES)))}")
        return number

    @model_validator(mode="after")
    def _options_that_are_used(self) -> Self:
        known = self.chosen.weights
        if foreign := [term for term in self.weights or {} if term not in known]:
            raise ValueError(f"strategy {self.strategy} has no term {foreign[0]}; it has {', '.join(known)}")
        if self.layers is not None and not self.chosen.compares_features:
            raise ValueError(f"strategy {self.strategy} compares no features; leave layers out, or take 4 or 5")
        return self

    @property
    def chosen(self) -> Strategy:
        """The strategy of this number."""
        return STRATEGIES[self.strategy]

    @property
    def term_weights(self) -> Mapping[str, float]:
        """Weight of each of the strategy's terms."""
        return {**self.chosen.weights, **(self.weights or {})}
