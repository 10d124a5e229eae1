"""Carrying out a plan: channels first, then residual blocks."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from yolo_dist.compress.graph import ChannelGraph
from yolo_dist.compress.pruning.compensation import compensate
from yolo_dist.compress.pruning.layer_removal import Lineage, cfg_without, remove_blocks
from yolo_dist.compress.pruning.plan import PrunePlan
from yolo_dist.compress.pruning.surgery import compact_cfg, cut
from yolo_dist.darknet.cfg import Cfg
from yolo_dist.darknet.network import Network


@dataclass(frozen=True)
class Compact:
    """A network that was cut, and what is needed to compare it with the one it came from.

    Attributes:
        network: the compact network.
        lineage: which layer of the network before each of its layers was.
        full: the network before, compensated if the compact one is.
        graph: channel graph of `full`.
        kept: which of its channels stay, bool [channels].
    """

    network: Network
    lineage: Lineage
    full: Network
    graph: ChannelGraph
    kept: NDArray[np.bool_]


def carry_out(network: Network, plan: PrunePlan, *, compensated: bool = True) -> Compact:
    """Cut what a plan lets go, channels first, then residual blocks; `network` stays as it is."""
    graph = ChannelGraph.from_cfg(network.cfg)
    kept = graph.kept_channels(plan.masks())
    full = compensate(network, graph, kept, plan.blocks) if compensated else network
    compact, lineage = remove_blocks(cut(full, graph, kept), plan.blocks)
    return Compact(compact, lineage, full, graph, kept)


def planned_cfg(graph: ChannelGraph, plan: PrunePlan) -> Cfg:
    """The cfg of the network that a plan leads to; no tensor is touched."""
    return cfg_without(compact_cfg(graph, graph.kept_channels(plan.masks())), plan.blocks).cfg
