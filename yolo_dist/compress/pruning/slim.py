"""One global threshold over all convolutions, a least share a layer, and tied channels needed by any of them stay."""

import numpy as np
from numpy.typing import NDArray

from yolo_dist.compress.graph import ChannelGraph
from yolo_dist.compress.importance import Importance
from yolo_dist.compress.pruning.candidates import all_candidates
from yolo_dist.compress.pruning.method import PruneConfig, method
from yolo_dist.compress.pruning.plan import PrunePlan
from yolo_dist.compress.pruning.threshold import global_threshold
from yolo_dist.compress.pruning.ties import any_keeps, round_up, value_of_best


@method("slim", "percent", "round_to", "layer_keep")
def plan(graph: ChannelGraph, importance: Importance, config: PruneConfig) -> PrunePlan:
    """Keep channels of importance > t, but at least max(1, ⌊C·layer_keep⌋) a layer; masks of tied ones are OR-ed.

    Raises:
        PruneError: the network has no candidate.
    """
    candidates = all_candidates(graph, config)
    threshold = global_threshold(importance, candidates, config.percent)
    masks = {layer: _mask(importance[layer], threshold, config.layer_keep) for layer in candidates}
    kept = any_keeps(graph, masks)
    if config.round_to:
        kept = round_up(graph, kept, value_of_best(graph, importance), config.round_to)
    return PrunePlan.from_channels(graph, kept, candidates, method="slim", percent=config.percent, threshold=threshold)


def _mask(values: NDArray[np.float32], threshold: float, layer_keep: float) -> NDArray[np.bool_]:
    mask = values > threshold
    fewest = max(1, int(len(values) * layer_keep))
    if mask.sum() < fewest:
        mask[np.argsort(-values, kind="stable")[:fewest]] = True
    return mask
