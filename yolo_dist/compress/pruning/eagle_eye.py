"""EagleEye: random shapes under a budget; the best one is found by its validation mAP, not by a rule.

Li et al. 2020, "EagleEye: Fast Sub-net Evaluation for Efficient Neural Network Pruning". This file draws one shape;
`selection` draws as many as asked for and keeps the one that is best after batch-norm re-estimation, which needs no
sparse training before.
"""

import math

import numpy as np
from numpy.typing import NDArray

from yolo_dist.compress.graph import ChannelGraph
from yolo_dist.compress.importance import Importance
from yolo_dist.compress.pruning.budget import Budget, cost_of
from yolo_dist.compress.pruning.candidates import all_candidates, free_sets
from yolo_dist.compress.pruning.method import PruneConfig, method
from yolo_dist.compress.pruning.plan import PrunePlan
from yolo_dist.compress.pruning.surgery import compact_cfg
from yolo_dist.compress.pruning.ties import staying, value_of_best
from yolo_dist.errors import PruneError

BISECTIONS = 24
LARGEST_SCALE = 1e6
"""At which every set is down to its last channels."""


@method("eagle-eye", "round_to", "candidates")
def plan(graph: ChannelGraph, importance: Importance, config: PruneConfig) -> PrunePlan:
    """Keep a random share of every set of channels, all scaled so that the network just meets its budget.

    A set keeps the share e^(−s·u), u uniform between 0 and 1 by `config.seed`, one scale s for all: with a smaller
    budget all sets shrink together, and none falls to its last channel long before the others. Where little is cut
    that is the paper's uniform share s·u of what goes. Within a set the most important channels stay, at least one.

    Raises:
        PruneError: the network has no candidate, no budget is given, or even one channel a set exceeds it.
    """
    budget = Budget.of(config, graph)
    if budget is None:
        raise PruneError("method eagle-eye: give the budget: target_macs or target_parameters, such as 0.5")
    candidates = all_candidates(graph, config)
    sets = free_sets(graph, config)
    shares = np.random.default_rng(config.seed).random(len(sets))
    values = value_of_best(graph, importance)
    orders = [one.channels[np.argsort(-values[one.channels], kind="stable")] for one in sets]

    def keep(scale: float) -> NDArray[np.bool_]:
        kept = np.ones(len(graph.frozen), bool)
        for order, share in zip(orders, shares, strict=True):
            kept[order[staying(len(order), 1 - math.exp(-share * scale), config.round_to or 1) :]] = False
        return kept | graph.frozen

    def meets_budget(scale: float) -> bool:
        return cost_of(budget.quantity, compact_cfg(graph, keep(scale))) <= budget.limit

    low, high = 0.0, 1.0
    while not meets_budget(high):
        if high > LARGEST_SCALE:
            least = cost_of(budget.quantity, compact_cfg(graph, keep(high)))
            raise PruneError(f"method eagle-eye: {budget} cannot be met; the smallest shape here has {least:,}")
        low, high = high, 2 * high
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        low, high = (low, middle) if meets_budget(middle) else (middle, high)
    kept = keep(high)
    chosen = np.concatenate(orders)
    return PrunePlan.from_channels(
        graph, kept, candidates, method="eagle-eye", percent=float(1 - kept[chosen].mean()), threshold=None
    )
