"""Whether a network is sparse enough for a cut, and for which milder one it is."""

import math
from bisect import bisect_left
from collections.abc import Callable, Sequence

import numpy as np

from yolo_dist.compress.graph import ChannelGraph
from yolo_dist.compress.pruning.method import PruneConfig
from yolo_dist.compress.pruning.plan import PrunePlan
from yolo_dist.compress.pruning.selection import Planner
from yolo_dist.compress.residual import residual_blocks
from yolo_dist.compress.sparsity import PRUNABLE_SHARE, absolute_gammas
from yolo_dist.darknet.network import Network
from yolo_dist.errors import LayerWouldVanish, NotSparseEnough

Damage = Callable[[PrunePlan], str]
"""Says what a plan would cost; asked only when it is refused."""


def check_ready(
    network: Network, planner: Planner, config: PruneConfig, plan: PrunePlan, damage: Damage | None = None
) -> None:
    """Refuse a cut that a network is not sparse enough for; the message tells the damage, if it can be told.

    Args:
        network: to be cut.
        planner: its plans for other requests, of which the hardest that would not be refused is named.
        config: the request.
        plan: what it led to.
        damage: what the plan would cost.

    Raises:
        NotSparseEnough: the plan cuts more than 1 % of its candidates' summed |γ|.
    """
    lost = lost_share(network, plan)
    if lost <= PRUNABLE_SHARE:
        return

    def refused(request: PruneConfig) -> bool:
        try:
            return lost_share(network, planner(request)) > PRUNABLE_SHARE
        except LayerWouldVanish:
            return True

    asked = config.model_copy(update={"percent": plan.percent})
    milder = _milder(asked, plan)
    found = bisect_left(milder, True, key=refused)
    ready = f"not ready for method {config.method}"
    if found and planner(milder[found - 1]).cuts_anything:
        ready = f"ready to {_amount(milder[found - 1], plan)}"
    told = f"; {damage(plan)}" if damage else ""
    raise NotSparseEnough(
        f"{_amount(asked, plan)} would cut {lost:.1%} of the summed |γ|, and accuracy falls far beyond "
        f"{PRUNABLE_SHARE:.0%}{told}; the network is {ready}: train it sparser (sparsity.budget), cut less, or force "
        "it (--force, force: true) and fine-tune"
    )


def lost_share(network: Network, plan: PrunePlan) -> float:
    """Share of the summed |γ| of its candidates that a plan cuts; of blocks that go, of those that feed a shortcut.

    Where blocks alone go each counts by its mean |γ|, as in what ranks them and in the gauge of sparse training.
    """
    gammas = absolute_gammas(network, _candidates(network, plan))
    if not plan.channels:
        gammas = {layer: values.mean(keepdims=True, dtype=np.float64) for layer, values in gammas.items()}
    masks = plan.masks() | {block.feeding: np.zeros(len(gammas[block.feeding]), bool) for block in plan.blocks}
    total = sum(float(values.sum()) for values in gammas.values())
    return sum(float(gammas[layer][~mask].sum()) for layer, mask in masks.items()) / max(total, 1e-12)


def _candidates(network: Network, plan: PrunePlan) -> list[int]:
    """Convolutions whose γ a plan chose from; for blocks those that feed a shortcut."""
    blocks = residual_blocks(ChannelGraph.from_cfg(network.cfg)) if plan.blocks else []
    return sorted(plan.channels.keys() | {block.feeding for block in blocks})


def _milder(asked: PruneConfig, plan: PrunePlan) -> Sequence[PruneConfig]:
    """Requests that cut ever more, up to `asked`: fewer blocks of a given number, then hundredths of percent."""
    if asked.percents:
        scaled = [tuple(round(share * n / 100, 4) for share in asked.percents) for n in range(100)]
        return [asked.model_copy(update={"percents": shares}) for shares in scaled]
    fewer = [asked.model_copy(update={"percent": 0.0, "shortcuts": n}) for n in range(asked.shortcuts or 0)]
    if asked.shortcuts is not None and not plan.channels:
        return fewer
    hundredths = range(math.ceil(asked.percent * 100))
    return [*fewer, *(asked.model_copy(update={"percent": n / 100}) for n in hundredths)]


def _amount(request: PruneConfig, plan: PrunePlan) -> str:
    """How much a request cuts, as one would ask for it."""
    if request.percents:
        return f"percents {','.join(f'{share:g}' for share in request.percents)}"
    percent = f"percent {request.percent:g}"
    if request.shortcuts is None:
        return percent
    blocks = f"{request.shortcuts} residual block{'' if request.shortcuts == 1 else 's'}"
    return f"{percent} and {blocks}" if plan.channels else blocks
