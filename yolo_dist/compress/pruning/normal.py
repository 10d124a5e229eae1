"""One global threshold on |γ| over convolutions that no shortcut ties (Liu et al. 2017, "Network Slimming")."""

import numpy as np

from yolo_dist.compress.graph import ChannelGraph, plain_convolutions
from yolo_dist.compress.pruning.method import Importance, PruneConfig, method
from yolo_dist.compress.pruning.plan import PrunePlan
from yolo_dist.errors import LayerWouldVanish, PruneError


@method("normal")
def plan(graph: ChannelGraph, importance: Importance, config: PruneConfig) -> PrunePlan:
    """Keep |γ| ≥ t with t the ⌊n·percent⌋-th smallest |γ| of all candidates.

    Raises:
        LayerWouldVanish: a layer has no channel at or above the threshold.
        PruneError: the network has no candidate.
    """
    candidates = plain_convolutions(graph, config.scope)
    if not candidates:
        raise PruneError("method normal: no convolution is free of shortcuts here; nothing can be cut")
    ordered = np.sort(np.concatenate([importance[layer] for layer in candidates]))
    threshold = ordered[int(len(ordered) * config.percent)]
    for layer in candidates:
        if importance[layer].max() < threshold:
            largest = _largest_percent(importance, candidates)
            raise LayerWouldVanish(layer, len(importance[layer]), config.percent, largest)
    masks = {layer: importance[layer] >= threshold for layer in candidates}
    return PrunePlan.from_masks(masks, method="normal", percent=config.percent, threshold=float(threshold))


def _largest_percent(importance: Importance, candidates: list[int]) -> float:
    """The largest percent, to 0.001, whose threshold leaves every layer its best channel."""
    ordered = np.sort(np.concatenate([importance[layer] for layer in candidates]))
    weakest = min(float(importance[layer].max()) for layer in candidates)
    last = int(np.searchsorted(ordered, weakest, side="right")) - 1
    percents = np.arange(1000) / 1000
    return float(percents[(len(ordered) * percents).astype(int) <= last].max())
