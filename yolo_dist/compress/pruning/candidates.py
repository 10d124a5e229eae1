"""The convolutions that methods choose from, refused where there are none, or none is worth more than another."""

from collections.abc import Iterable

import numpy as np
from numpy.typing import ArrayLike

from yolo_dist.compress.graph import ChannelGraph, ChannelSet, Scope, plain_convolutions, prunable_convolutions
from yolo_dist.compress.importance import Importance
from yolo_dist.compress.pruning.method import PruneConfig
from yolo_dist.errors import PruneError


def plain_candidates(graph: ChannelGraph, config: PruneConfig) -> list[int]:
    """Convolutions that no shortcut ties.

    Raises:
        PruneError: there are none.
    """
    return _some(plain_convolutions(graph, config.scope), graph, config, "is free of shortcuts", "shortcut or slim")


def all_candidates(graph: ChannelGraph, config: PruneConfig) -> list[int]:
    """All convolutions whose channels may go, tied ones included.

    Raises:
        PruneError: there are none.
    """
    return _some(prunable_convolutions(graph, config.scope), graph, config, "may lose channels")


def free_sets(graph: ChannelGraph, config: PruneConfig) -> list[ChannelSet]:
    """The sets of channels that may go.

    Raises:
        PruneError: there are none.
    """
    sets = candidate_sets(graph, config.scope)
    _some([one.convolutions[0] for one in sets], graph, config, "creates channels that may go without others")
    return sets


def candidate_sets(graph: ChannelGraph, scope: Scope) -> list[ChannelSet]:
    """Sets of channels that may go and that no convolution outside the scope creates too."""
    candidates = set(prunable_convolutions(graph, scope))
    return [one for one in graph.channel_sets() if candidates.issuperset(one.convolutions)]


def require_differences(importance: Importance, candidates: Iterable[int], measure: str = "gamma") -> None:
    """Refuse candidates of which no channel is worth more than another.

    Raises:
        PruneError: names the measure and what it says of all of them.
    """
    values = [importance[layer] for layer in candidates]
    if values:
        require_different(np.concatenate(values), f"importance {measure}", "channels that may be cut")


def require_different(values: ArrayLike, measured: str, what: str) -> None:
    """Refuse to choose among things that all measure the same.

    Raises:
        PruneError: says what was measured, its value, and of what.
    """
    least, most = np.min(values), np.max(values)
    if np.size(values) > 1 and least == most:
        raise PruneError(
            f"{measured} is {least:g} for all {what}, so nothing tells them apart; train the network first, with "
            "sparsity or without, or choose another importance"
        )


def _some(
    candidates: list[int], graph: ChannelGraph, config: PruneConfig, what: str, methods: str | None = None
) -> list[int]:
    if candidates:
        return candidates
    if not list(graph.convolutions()):
        raise PruneError(
            f"method {config.method}: no convolution here has batch normalisation, by whose γ channels are told apart; "
            "train a network that has it"
        )
    instead = methods or ("--scope full" if config.scope == "classic" else "")
    advice = f"; try {instead}" if instead else ""
    raise PruneError(f"method {config.method}: no convolution {what} here; nothing can be cut{advice}")
