"""From a network and a request to a smaller network and its proof."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from yolo_dist.compress.graph import ChannelGraph
from yolo_dist.compress.pruning.compensation import compensate
from yolo_dist.compress.pruning.method import METHODS, PruneConfig
from yolo_dist.compress.pruning.plan import PrunePlan
from yolo_dist.compress.pruning.proof import TOLERANCE, Proof, changed_channels, largest_difference, measure_change
from yolo_dist.compress.pruning.reestimation import reestimate_batchnorm
from yolo_dist.compress.pruning.surgery import cut
from yolo_dist.compress.sparsity import PRUNABLE_SHARE, absolute_gammas, prunable_share
from yolo_dist.darknet.network import Network
from yolo_dist.errors import NotSparseEnough, PruneError


@dataclass(frozen=True)
class Pruned:
    """A compact network, the plan it follows and the proof that it equals the masked one."""

    network: Network
    plan: PrunePlan
    proof: Proof


def make_plan(network: Network, config: PruneConfig) -> PrunePlan:
    """What a method would cut; nothing is changed.

    Raises:
        PruneError: γ are not finite, or what the method itself raises.
    """
    graph = ChannelGraph.from_cfg(network.cfg)
    gammas = absolute_gammas(network, list(graph.convolutions()))
    for layer, values in gammas.items():
        if not np.isfinite(values).all():
            raise PruneError(f"layer {layer} has a batch-norm scale that is not finite; train the network again")
    return METHODS[config.method](graph, gammas, config)


def check_ready(network: Network, plan: PrunePlan) -> None:
    """Refuse a cut that a network is not sparse enough for.

    Raises:
        NotSparseEnough: the plan cuts more than 1 % of its candidates' summed |γ|.
    """
    gammas = absolute_gammas(network, list(plan.channels))
    masks = plan.masks()
    total = sum(float(values.sum()) for values in gammas.values())
    lost = sum(float(gammas[layer][~mask].sum()) for layer, mask in masks.items()) / max(total, 1e-12)
    if lost > PRUNABLE_SHARE:
        ready = prunable_share(np.concatenate(list(gammas.values())))
        raise NotSparseEnough(
            f"percent {plan.percent:g} would cut {lost:.1%} of the summed |γ|, and accuracy falls far beyond "
            f"{PRUNABLE_SHARE:.0%}; the network is ready to percent {np.floor(ready * 100) / 100:g}: train it sparser "
            "(sparsity.budget), cut less, or force it (--force, force: true) and fine-tune"
        )


def prune(
    network: Network,
    config: PruneConfig,
    images: Tensor,
    image_size: tuple[int, int],
    training_batches: Iterable[Tensor] = (),
) -> Pruned:
    """Cut a network and prove the result.

    Args:
        network: the network to cut; it stays as it is.
        config: what to cut.
        images: float [B, C, H, W] in 0..1, on which masked and compact network are compared.
        image_size: (width, height) for MACs and latency.
        training_batches: images for `config.reestimate_images`.

    Raises:
        NotSparseEnough: see `check_ready`; not with `force`.
        LayerWouldVanish, PruneError: the method cannot meet the request.
        ProofError: masked and compact network disagree.
    """
    plan = make_plan(network, config)
    if not config.force:
        check_ready(network, plan)
    graph = ChannelGraph.from_cfg(network.cfg)
    kept = graph.kept_channels(plan.masks())
    full = compensate(network, graph, kept) if config.compensate else network
    compact = cut(full, graph, kept)
    difference = largest_difference(full, compact, graph, kept, images)
    if config.reestimate_images:
        reestimate_batchnorm(compact, training_batches)
    proof = Proof(
        method=plan.method,
        percent=plan.percent,
        threshold=plan.threshold,
        images=len(images),
        max_abs_difference=difference,
        tolerance=TOLERANCE,
        channels=changed_channels(network, compact),
        **measure_change(network, compact, image_size),
    )
    return Pruned(compact, plan, proof)
