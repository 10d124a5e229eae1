"""The distillation strategies by number, and what all of them are given."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from yolo_dist.darknet.heads import Head


class Matched(Protocol):
    """Boxes that anchors of one head answer for; one row a pair of a box and an anchor."""

    @property
    def image(self) -> Tensor:
        """Image of the batch, int64 [M]."""

    @property
    def anchor(self) -> Tensor:
        """Anchor of the head, int64 [M]."""

    @property
    def cell(self) -> Tensor:
        """Column and row of the cell, int64 [M, 2]."""

    @property
    def boxes(self) -> Tensor:
        """The true boxes, xyxy in input pixels, float32 [M, 4]."""


@dataclass(frozen=True)
class Outputs:
    """What a student or a teacher gives for a batch.

    Attributes:
        heads: where its raw outputs come from.
        raws: one a head, float32 [B, A, h, w, 5 + classes].
        attention: one a compared layer, float32 [B, h, w]; empty for strategies that compare none.
    """

    heads: Sequence[Head]
    raws: Sequence[Tensor]
    attention: Sequence[Tensor] = ()


@dataclass(frozen=True)
class Comparison:
    """A batch as its student and its teacher see it.

    Attributes:
        matches: one a head; which boxes are there.
        images: images in the global batch, by which divergences are divided.
        temperature: T that softens what is compared.
    """

    student: Outputs
    teacher: Outputs
    matches: Sequence[Matched]
    images: int
    temperature: float


Terms = Mapping[str, Tensor]
"""Name of a term → its sum over the worker's images, not yet weighted."""

Function = Callable[[Comparison], Terms]


@dataclass(frozen=True)
class Strategy:
    """A way to compare student and teacher.

    Attributes:
        terms: what it adds to the loss.
        weights: name of each term → its weight.
        compares_features: whether it looks at layers before the heads too.
    """

    terms: Function
    weights: Mapping[str, float]
    compares_features: bool


STRATEGIES: dict[int, Strategy] = {}


def strategy(
    number: int, weights: Mapping[str, float], compares_features: bool = False
) -> Callable[[Function], Function]:
    """Register a function under its number in recipes, with the weights its terms have by default."""

    def register(terms: Function) -> Function:
        STRATEGIES[number] = Strategy(terms, weights, compares_features)
        return terms

    return register
