"""`shortcut` with rounded layers, then `layer` on what it leaves."""

from yolo_dist.compress.graph import ChannelGraph
from yolo_dist.compress.importance import Importance
from yolo_dist.compress.pruning.candidates import all_candidates
from yolo_dist.compress.pruning.layer import weakest_blocks
from yolo_dist.compress.pruning.method import DEFAULT_MULTIPLE, PruneConfig, method
from yolo_dist.compress.pruning.plan import PrunePlan
from yolo_dist.compress.pruning.threshold import global_threshold, masks_from
from yolo_dist.compress.pruning.ties import first_decides, round_up, value_of_first


@method("layer-channel-regular", "percent", "round_to", "shortcuts")
def plan(graph: ChannelGraph, importance: Importance, config: PruneConfig) -> PrunePlan:
    """Cut channels as `shortcut` does, rounded up to a multiple, then remove the blocks of lowest mean importance.

    Raises:
        PruneError: the network has no candidate, or fewer residual blocks than shall go.
    """
    candidates = all_candidates(graph, config)
    threshold = global_threshold(importance, candidates, config.percent)
    kept = first_decides(graph, masks_from(importance, candidates, threshold)) | graph.frozen
    kept = round_up(graph, kept, value_of_first(graph, importance), config.round_to or DEFAULT_MULTIPLE)
    channels = PrunePlan.from_channels(
        graph, kept, candidates, method=config.method, percent=config.percent, threshold=threshold
    )
    return channels.without(weakest_blocks(graph, importance, config, channels.masks()), method=config.method)
