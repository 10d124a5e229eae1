"""A plan of what pruning keeps: data that can be printed, stored, compared and tested without a tensor."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from yolo_dist.compress.graph import ChannelGraph
from yolo_dist.compress.residual import ResidualBlock

Masks = Mapping[int, NDArray[np.bool_]]
"""Convolution → which of its channels stay, bool [C]."""


@dataclass(frozen=True)
class PrunePlan:
    """Which channels of which convolutions stay, and which residual blocks go.

    Attributes:
        method: the method that made it.
        percent: share of the candidates that was asked for.
        threshold: importance under which channels go; None where the method has none.
        channels: channels of each candidate convolution before.
        keep: channels of each candidate that stay, ascending.
        blocks: residual blocks that go altogether.
        importance: the measure that the method went by.
    """

    method: str
    percent: float
    threshold: float | None
    channels: dict[int, int]
    keep: dict[int, tuple[int, ...]]
    blocks: tuple[ResidualBlock, ...] = ()
    importance: str = "gamma"

    @classmethod
    def from_masks(cls, masks: Masks, *, method: str, percent: float, threshold: float | None) -> "PrunePlan":
        """A plan from one mask a candidate."""
        return cls(
            method,
            percent,
            threshold,
            {layer: len(mask) for layer, mask in masks.items()},
            {layer: tuple(np.flatnonzero(mask).tolist()) for layer, mask in masks.items()},
        )

    @classmethod
    def from_channels(
        cls,
        graph: ChannelGraph,
        kept: NDArray[np.bool_],
        candidates: Sequence[int],
        *,
        method: str,
        percent: float,
        threshold: float | None,
    ) -> "PrunePlan":
        """A plan from one mask over all channels of the graph, bool [channels]; frozen channels stay."""
        masks = {layer: (kept | graph.frozen)[graph.outputs[layer]] for layer in candidates}
        return cls.from_masks(masks, method=method, percent=percent, threshold=threshold)

    def without(self, blocks: Sequence[ResidualBlock], *, method: str) -> "PrunePlan":
        """The same channels, and these residual blocks gone."""
        return replace(self, method=method, blocks=tuple(blocks))

    @property
    def cuts_anything(self) -> bool:
        """Whether the network will be smaller."""
        return bool(self.blocks) or any(len(self.keep[layer]) < count for layer, count in self.channels.items())

    def masks(self) -> dict[int, NDArray[np.bool_]]:
        """One mask a candidate, bool [C]."""
        return {layer: np.isin(np.arange(count), self.keep[layer]) for layer, count in self.channels.items()}

    def as_json(self) -> dict[str, Any]:
        """A JSON object; kept channels as lists of numbers."""
        return {
            "method": self.method,
            "importance": self.importance,
            "percent": self.percent,
            "threshold": self.threshold,
            "layers": {
                str(layer): {"channels": count, "keep": list(self.keep[layer])}
                for layer, count in self.channels.items()
            },
            "blocks": [asdict(block) for block in self.blocks],
        }
