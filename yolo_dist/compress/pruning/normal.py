"""One global threshold over convolutions that no shortcut ties (Liu et al. 2017, "Network Slimming")."""

from yolo_dist.compress.graph import ChannelGraph
from yolo_dist.compress.importance import Importance
from yolo_dist.compress.pruning.candidates import plain_candidates
from yolo_dist.compress.pruning.method import PruneConfig, method
from yolo_dist.compress.pruning.plan import PrunePlan
from yolo_dist.compress.pruning.threshold import keep_from_threshold
from yolo_dist.compress.pruning.ties import first_decides, round_up, value_of_first


@method("normal", "percent", "round_to")
def plan(graph: ChannelGraph, importance: Importance, config: PruneConfig) -> PrunePlan:
    """Keep channels of importance ≥ t with t the ⌊n·percent⌋-th smallest one of all candidates, by default |γ|.

    Raises:
        LayerWouldVanish: a layer has no channel at or above the threshold.
        PruneError: the network has no candidate.
    """
    candidates = plain_candidates(graph, config)
    threshold, kept = keep_from_threshold(graph, importance, candidates, config.percent, first_decides)
    if config.round_to:
        kept = round_up(graph, kept, value_of_first(graph, importance), config.round_to)
    return PrunePlan.from_channels(
        graph, kept, candidates, method="normal", percent=config.percent, threshold=threshold
    )
