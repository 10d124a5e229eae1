"""One global threshold over tied convolutions too: the first one of a group speaks for all of it."""

from yolo_dist.compress.graph import ChannelGraph
from yolo_dist.compress.importance import Importance
from yolo_dist.compress.pruning.candidates import all_candidates
from yolo_dist.compress.pruning.method import PruneConfig, method
from yolo_dist.compress.pruning.plan import PrunePlan
from yolo_dist.compress.pruning.threshold import keep_from_threshold
from yolo_dist.compress.pruning.ties import first_decides, round_up, value_of_first


@method("shortcut", "percent", "round_to")
def plan(graph: ChannelGraph, importance: Importance, config: PruneConfig) -> PrunePlan:
    """Keep importance ≥ t over all candidates; convolutions that a shortcut ties take the mask of their first.

    Raises:
        LayerWouldVanish: a layer has no channel at or above the threshold.
        PruneError: the network has no candidate.
    """
    candidates = all_candidates(graph, config)
    threshold, kept = keep_from_threshold(graph, importance, candidates, config.percent, first_decides)
    if config.round_to:
        kept = round_up(graph, kept, value_of_first(graph, importance), config.round_to)
    return PrunePlan.from_channels(
        graph, kept, candidates, method="shortcut", percent=config.percent, threshold=threshold
    )
