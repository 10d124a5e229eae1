"""`normal` with rounded layers: hardware likes channel counts that are multiples; nothing ever vanishes."""

from yolo_dist.compress.graph import ChannelGraph
from yolo_dist.compress.importance import Importance
from yolo_dist.compress.pruning.candidates import plain_candidates
from yolo_dist.compress.pruning.method import DEFAULT_MULTIPLE, PruneConfig, method
from yolo_dist.compress.pruning.plan import PrunePlan
from yolo_dist.compress.pruning.threshold import global_threshold, masks_from
from yolo_dist.compress.pruning.ties import first_decides, round_up, value_of_first


@method("regular", "percent", "round_to")
def plan(graph: ChannelGraph, importance: Importance, config: PruneConfig) -> PrunePlan:
    """Keep the channels that `normal` keeps, then the best up to a multiple of `round_to`; an empty layer keeps 8.

    Raises:
        PruneError: the network has no candidate.
    """
    candidates = plain_candidates(graph, config)
    threshold = global_threshold(importance, candidates, config.percent)
    kept = first_decides(graph, masks_from(importance, candidates, threshold))
    kept = round_up(graph, kept, value_of_first(graph, importance), config.round_to or DEFAULT_MULTIPLE)
    return PrunePlan.from_channels(
        graph, kept, candidates, method="regular", percent=config.percent, threshold=threshold
    )
