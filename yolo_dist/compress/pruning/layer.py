"""Whole residual blocks: those whose last convolution has the smallest mean importance go, shortcut included."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from yolo_dist.compress.graph import ChannelGraph
from yolo_dist.compress.importance import Importance
from yolo_dist.compress.pruning.candidates import require_different
from yolo_dist.compress.pruning.method import PruneConfig, method
from yolo_dist.compress.pruning.plan import PrunePlan
from yolo_dist.compress.residual import ResidualBlock, block_of, residual_blocks
from yolo_dist.darknet.cfg import Shortcut
from yolo_dist.errors import PruneError


@method("layer", "percent", "shortcuts")
def plan(graph: ChannelGraph, importance: Importance, config: PruneConfig) -> PrunePlan:
    """Remove the blocks with the lowest mean importance of the convolution that feeds the shortcut.

    Raises:
        PruneError: the network has fewer residual blocks than shall go, or all weigh the same.
    """
    nothing = PrunePlan.from_masks({}, method="layer", percent=config.percent, threshold=None)
    return nothing.without(weakest_blocks(graph, importance, config), method="layer")


def weakest_blocks(
    graph: ChannelGraph,
    importance: Importance,
    config: PruneConfig,
    masks: Mapping[int, NDArray[np.bool_]] | None = None,
) -> list[ResidualBlock]:
    """The `shortcuts` blocks, or `percent` of all, that weigh least; equal ones by place.

    Args:
        graph: the channel graph.
        importance: of each convolution's channels.
        config: how many.
        masks: channels that stay, where others are cut at the same time: only these count.

    Raises:
        PruneError: the network has fewer residual blocks than shall go, or all weigh the same and only some shall go.
    """
    blocks = residual_blocks(graph)
    if not blocks:
        raise PruneError(f"method {config.method}: {_why_none(graph)}; try normal, regular or slim")
    count = int(len(blocks) * config.percent) if config.shortcuts is None else config.shortcuts
    if count > len(blocks):
        others = sum(isinstance(layer, Shortcut) for layer in graph.cfg.layers) - len(blocks)
        not_removable = f", and {others} shortcuts that are part of no removable block" if others else ""
        raise PruneError(
            f"method {config.method}: {count} residual blocks shall go, but the network has {len(blocks)}"
            f"{not_removable}; the largest number that works is {len(blocks)} (blocks without a shortcut change size "
            "or width, so nothing could take their place)"
        )

    def weight(block: ResidualBlock) -> float:
        values = importance[block.feeding]
        staying = (masks or {}).get(block.feeding)
        return float(np.mean(values if staying is None else values[staying], dtype=np.float64))

    if 0 < count < len(blocks):
        require_different(
            [weight(block) for block in blocks], f"mean importance {config.importance}", "residual blocks"
        )
    return sorted(sorted(blocks, key=weight)[:count], key=lambda block: block.shortcut)


def _why_none(graph: ChannelGraph) -> str:
    for index, layer in enumerate(graph.cfg.layers):
        if isinstance(layer, Shortcut):
            return f"no shortcut here closes a block that can go; {graph.cfg.name_of(index)}: {block_of(graph, index)}"
    return "this network has no shortcuts, so no layer can go without changing what the next one reads"
