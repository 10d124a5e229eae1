"""Whether a network is sparse enough for a cut."""

from collections.abc import Callable

import numpy as np

from yolo_dist.compress.graph import ChannelGraph
from yolo_dist.compress.pruning.plan import PrunePlan
from yolo_dist.compress.residual import residual_blocks
from yolo_dist.compress.sparsity import PRUNABLE_SHARE, absolute_gammas, prunable_share
from yolo_dist.darknet.network import Network
from yolo_dist.errors import NotSparseEnough

Damage = Callable[[PrunePlan], str]
"""Says what a plan would cost; asked only when it is refused."""


def check_ready(network: Network, plan: PrunePlan, damage: Damage | None = None) -> None:
    """Refuse a cut that a network is not sparse enough for; the message tells the damage, if it can be told.

    Raises:
        NotSparseEnough: the plan cuts more than 1 % of its candidates' summed |γ|.
    """
    gammas = absolute_gammas(network, _candidates(network, plan))
    masks = plan.masks() | {block.feeding: np.zeros(len(gammas[block.feeding]), bool) for block in plan.blocks}
    total = sum(float(values.sum()) for values in gammas.values())
    lost = sum(float(gammas[layer][~mask].sum()) for layer, mask in masks.items()) / max(total, 1e-12)
    if lost > PRUNABLE_SHARE:
        ready = prunable_share(np.concatenate(list(gammas.values())))
        told = f"; {damage(plan)}" if damage else ""
        measure = "" if plan.importance == "gamma" else " by importance gamma"
        raise NotSparseEnough(
            f"percent {plan.percent:g} would cut {lost:.1%} of the summed |γ|, and accuracy falls far beyond "
            f"{PRUNABLE_SHARE:.0%}{told}; the network is ready to percent {np.floor(ready * 100) / 100:g}{measure}: "
            "train it sparser (sparsity.budget), cut less, or force it (--force, force: true) and fine-tune"
        )


def _candidates(network: Network, plan: PrunePlan) -> list[int]:
    """Convolutions whose γ a plan chose from; for blocks those that feed a shortcut."""
    blocks = residual_blocks(ChannelGraph.from_cfg(network.cfg)) if plan.blocks else []
    return sorted(plan.channels.keys() | {block.feeding for block in blocks})
