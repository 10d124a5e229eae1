"""One threshold over the channels of all candidates, and what it leaves of each."""

from bisect import bisect_left
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from yolo_dist.compress.graph import ChannelGraph
from yolo_dist.compress.importance import Importance
from yolo_dist.compress.pruning.plan import Masks
from yolo_dist.errors import LayerWouldVanish

Resolve = Callable[[ChannelGraph, Masks], NDArray[np.bool_]]
"""Masks of single convolutions to one over all channels of the graph; see `ties`."""


def global_threshold(importance: Importance, candidates: Sequence[int], percent: float) -> float:
    """The ⌊n·percent⌋-th smallest importance, from 0, of the n channels of all candidates."""
    ordered = np.sort(np.concatenate([importance[layer] for layer in candidates]))
    return float(ordered[int(len(ordered) * percent)])


def masks_from(importance: Importance, candidates: Sequence[int], threshold: float) -> Masks:
    """Channels at or above a threshold."""
    return {layer: importance[layer] >= threshold for layer in candidates}


def keep_from_threshold(
    graph: ChannelGraph, importance: Importance, candidates: Sequence[int], percent: float, resolve: Resolve
) -> tuple[float, NDArray[np.bool_]]:
    """The threshold at `percent`, and which channels of the graph stay, bool [channels].

    Raises:
        LayerWouldVanish: a candidate keeps nothing; names the largest percent, to 0.001, at which all keep something.
    """

    def keep(percent: float) -> tuple[float, NDArray[np.bool_]]:
        threshold = global_threshold(importance, candidates, percent)
        return threshold, resolve(graph, masks_from(importance, candidates, threshold)) | graph.frozen

    def vanishing(kept: NDArray[np.bool_]) -> list[int]:
        return [layer for layer in candidates if not kept[graph.outputs[layer]].any()]

    threshold, kept = keep(percent)
    if gone := vanishing(kept):
        too_much = bisect_left(range(1000), True, key=lambda thousandths: bool(vanishing(keep(thousandths / 1000)[1])))
        raise LayerWouldVanish(gone[0], len(graph.outputs[gone[0]]), percent, (too_much - 1) / 1000)
    return threshold, kept
