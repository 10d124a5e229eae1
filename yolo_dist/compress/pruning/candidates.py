"""The convolutions that methods choose from, refused where there are none."""

from yolo_dist.compress.graph import ChannelGraph, ChannelSet, Scope, plain_convolutions, prunable_convolutions
from yolo_dist.compress.pruning.method import PruneConfig
from yolo_dist.errors import PruneError


def plain_candidates(graph: ChannelGraph, config: PruneConfig) -> list[int]:
    """Convolutions that no shortcut ties.

    Raises:
        PruneError: there are none.
    """
    return _some(plain_convolutions(graph, config.scope), config, "is free of shortcuts", "try shortcut or slim")


def all_candidates(graph: ChannelGraph, config: PruneConfig) -> list[int]:
    """All convolutions whose channels may go, tied ones included.

    Raises:
        PruneError: there are none.
    """
    return _some(prunable_convolutions(graph, config.scope), config, "may lose channels", "try --scope full")


def candidate_sets(graph: ChannelGraph, scope: Scope) -> list[ChannelSet]:
    """Sets of channels that may go and that no convolution outside the scope creates too."""
    candidates = set(prunable_convolutions(graph, scope))
    return [one for one in graph.channel_sets() if candidates.issuperset(one.convolutions)]


def _some(candidates: list[int], config: PruneConfig, what: str, instead: str) -> list[int]:
    if not candidates:
        raise PruneError(f"method {config.method}: no convolution {what} here; nothing can be cut; {instead}")
    return candidates
