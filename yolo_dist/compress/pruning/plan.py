"""A plan of what pruning keeps: data that can be printed, stored, compared and tested without a tensor."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Masks = Mapping[int, NDArray[np.bool_]]
"""Convolution → which of its channels stay, bool [C]."""


@dataclass(frozen=True)
class PrunePlan:
    """Which channels of which convolutions stay.

    Attributes:
        method: the method that made it.
        percent: share of the candidates' channels that was asked for.
        threshold: |γ| under which channels go.
        channels: channels of each candidate convolution before.
        keep: channels of each candidate that stay, ascending.
    """

    method: str
    percent: float
    threshold: float
    channels: dict[int, int]
    keep: dict[int, tuple[int, ...]]

    @classmethod
    def from_masks(cls, masks: Masks, *, method: str, percent: float, threshold: float) -> "PrunePlan":
        """A plan from one mask a candidate."""
        return cls(
            method,
            percent,
            threshold,
            {layer: len(mask) for layer, mask in masks.items()},
            {layer: tuple(np.flatnonzero(mask).tolist()) for layer, mask in masks.items()},
        )

    def masks(self) -> dict[int, NDArray[np.bool_]]:
        """One mask a candidate, bool [C]."""
        return {layer: np.isin(np.arange(count), self.keep[layer]) for layer, count in self.channels.items()}

    def as_json(self) -> dict[str, Any]:
        """A JSON object; kept channels as lists of numbers."""
        return {
            "method": self.method,
            "percent": self.percent,
            "threshold": self.threshold,
            "layers": {
                str(layer): {"channels": count, "keep": list(self.keep[layer])}
                for layer, count in self.channels.items()
            },
        }
