"""`slim`, then `layer` on what it leaves."""

from yolo_dist.compress.graph import ChannelGraph
from yolo_dist.compress.importance import Importance
from yolo_dist.compress.pruning import slim
from yolo_dist.compress.pruning.layer import weakest_blocks
from yolo_dist.compress.pruning.method import PruneConfig, method
from yolo_dist.compress.pruning.plan import PrunePlan


@method("layer-channel", "percent", "round_to", "layer_keep", "shortcuts")
def plan(graph: ChannelGraph, importance: Importance, config: PruneConfig) -> PrunePlan:
    """Cut channels as `slim` does, then remove the blocks with the lowest mean importance among the channels that stay.

    Raises:
        PruneError: the network has no candidate, or fewer residual blocks than shall go.
    """
    channels = slim.plan(graph, importance, config)
    blocks = weakest_blocks(graph, importance, config, channels.masks())
    return channels.without(blocks, method="layer-channel")
