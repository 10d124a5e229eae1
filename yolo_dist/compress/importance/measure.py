"""The measures of importance by name, and what they may go by."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from yolo_dist.darknet.network import Network

Importance = Mapping[int, NDArray[np.float32]]
"""Convolution → importance of each of its channels, float32 [C], ≥ 0."""

BatchLoss = Callable[[Network], Tensor]
"""Loss of a network on one calibration batch, a scalar; the function holds the batch."""


@dataclass(frozen=True)
class Basis:
    """What a measure may go by besides the network.

    Attributes:
        seed: of measures that draw.
        losses: one function a calibration batch; gone through at most once, and only by measures that need it.
    """

    seed: int = 0
    losses: Iterable[BatchLoss] = ()


Measure = Callable[[Network, Sequence[int], Basis], Importance]
"""Importance of the channels of some batch-normalised convolutions; the network stays as it is."""

MEASURES: dict[str, Measure] = {}
CALIBRATED: set[str] = set()
"""Measures that go by the losses on calibration batches."""
RELATIVE: set[str] = set()
"""Measures whose mean is 1 in every layer, so that they tell channels apart and not layers or blocks."""


def measure(name: str, *, calibrated: bool = False, relative: bool = False) -> Callable[[Measure], Measure]:
    """Register a measure under its name in recipes; `calibrated` if it needs `Basis.losses`, `relative`: `RELATIVE`."""

    def register(function: Measure) -> Measure:
        MEASURES[name] = function
        if calibrated:
            CALIBRATED.add(name)
        if relative:
            RELATIVE.add(name)
        return function

    return register
