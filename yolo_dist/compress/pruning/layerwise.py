"""A share of its own for every set of channels: what a sensitivity analysis suggests, or a search tries."""

from collections.abc import Sequence

import numpy as np

from yolo_dist.compress.graph import ChannelGraph, ChannelSet
from yolo_dist.compress.importance import Importance
from yolo_dist.compress.pruning.candidates import all_candidates, free_sets
from yolo_dist.compress.pruning.method import PruneConfig, method
from yolo_dist.compress.pruning.plan import PrunePlan
from yolo_dist.compress.pruning.ties import staying, value_of_best
from yolo_dist.errors import PruneError


@method("layerwise", "percents", "round_to")
def plan(graph: ChannelGraph, importance: Importance, config: PruneConfig) -> PrunePlan:
    """Cut of each set of channels its share in `config.percents`, the least important first; at least one stays.

    Sets are in the order of their first convolution, as `prune --explain` shows those that may be cut.

    Raises:
        PruneError: the network has no candidate, or another number of sets than there are shares.
    """
    candidates = all_candidates(graph, config)
    sets = free_sets(graph, config)
    percents = config.percents or ()
    if problem := problem_of_shares(sets, config):
        raise PruneError(f"method layerwise: {problem}")
    values = value_of_best(graph, importance)
    kept = np.ones(len(graph.frozen), bool)
    for one, percent in zip(sets, percents, strict=True):
        order = one.channels[np.argsort(-values[one.channels], kind="stable")]
        kept[order[staying(len(order), percent, config.round_to or 1) :]] = False
    kept |= graph.frozen
    chosen = np.concatenate([one.channels for one in sets])
    return PrunePlan.from_channels(
        graph, kept, candidates, method="layerwise", percent=float(1 - kept[chosen].mean()), threshold=None
    )


def problem_of_shares(sets: Sequence[ChannelSet], config: PruneConfig) -> str | None:
    """Why `config.percents` does not go with sets of channels; None where there is one share for each."""
    count = len(config.percents or ())
    if count == len(sets):
        return None
    first = ", ".join(str(one.convolutions[0]) for one in sets)
    return (
        f"percents has {count} shares, and in scope {config.scope} there are {len(sets)} sets of channels to cut, "
        f"created by layers {first}"
    )
