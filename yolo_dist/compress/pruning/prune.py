"""From a network and a request to a smaller network and its proof."""

from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from yolo_dist.compress.graph import ChannelGraph
from yolo_dist.compress.importance import MEASURES, Basis, BatchLoss, Importance
from yolo_dist.compress.pruning.compensation import compensate
from yolo_dist.compress.pruning.layer_removal import Lineage, remove_blocks
from yolo_dist.compress.pruning.method import METHODS, PruneConfig
from yolo_dist.compress.pruning.plan import PrunePlan
from yolo_dist.compress.pruning.proof import TOLERANCE, Proof, changed_channels, largest_difference, measure_change
from yolo_dist.compress.pruning.readiness import check_ready
from yolo_dist.compress.pruning.reestimation import reestimate_batchnorm
from yolo_dist.compress.pruning.surgery import cut
from yolo_dist.darknet.network import Network
from yolo_dist.errors import PruneError


@dataclass(frozen=True)
class Pruned:
    """A compact network, the plan it follows, and the proof that it equals the masked one."""

    network: Network
    plan: PrunePlan
    proof: Proof
    lineage: Lineage
    """Which layer of the network before each of its layers was."""


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


def make_plan(network: Network, config: PruneConfig, calibration: Iterable[BatchLoss] = ()) -> PrunePlan:
    """What a method would cut; nothing is changed.

    Args:
        network: what would be cut.
        config: how much of it, and which of its channels first.
        calibration: losses on training images, for importance `taylor`.

    Raises:
        PruneError: weights are not finite, all channels are equally important, or what importance and method raise.
    """
    graph = ChannelGraph.from_cfg(network.cfg)
    require_finite_weights(network)
    importance = MEASURES[config.importance](network, list(graph.convolutions()), Basis(config.seed, calibration))
    _require_differences(importance, config.importance)
    return replace(METHODS[config.method](graph, importance, config), importance=config.importance)


def require_finite_weights(network: Network) -> None:
    """Refuse a network with NaN or infinity in it.

    Raises:
        PruneError: names the first layer that has one.
    """
    for index, layer in enumerate(network.layers):
        if not all(bool(torch.isfinite(values).all()) for values in layer.state_dict().values()):
            raise PruneError(f"{network.cfg.place(index)} has weights that are not finite; train the network again")


def _require_differences(importance: Importance, measure: str) -> None:
    values = np.concatenate(list(importance.values())) if importance else np.zeros(0)
    if len(values) and values.min() == values.max():
        raise PruneError(
            f"importance {measure} is {values.min():g} for all channels, so nothing tells them apart; train the network "
            "first, with sparsity or without, or choose another importance"
        )


def prune(
    network: Network,
    config: PruneConfig,
    images: Tensor,
    image_size: tuple[int, int],
    training_batches: Iterable[Tensor] = (),
    calibration: Iterable[BatchLoss] = (),
) -> Pruned:
    """Cut a network and prove the result.

    Args:
        network: the network to cut; it stays as it is.
        config: what to cut.
        images: float [B, C, H, W] in 0..1, on which masked and compact network are compared.
        image_size: (width, height) for MACs and latency.
        training_batches: images for `config.reestimate_images`.
        calibration: see `make_plan`.

    Raises:
        NotSparseEnough: see `check_ready`; not with `force`.
        LayerWouldVanish, PruneError: the method cannot meet the request.
        ProofError: masked and compact network disagree.
    """
    plan = make_plan(network, config, calibration)
    if not config.force:
        check_ready(network, plan)
    result = carry_out(network, plan, compensated=config.compensate)
    compact = result.network
    difference = largest_difference(result.full, compact, result.graph, result.kept, images, plan.blocks)
    if config.reestimate_images:
        reestimate_batchnorm(compact, training_batches)
    proof = Proof(
        method=plan.method,
        percent=plan.percent,
        threshold=plan.threshold,
        images=len(images),
        max_abs_difference=difference,
        tolerance=TOLERANCE,
        channels=changed_channels(network, compact, result.lineage),
        **measure_change(network, compact, image_size),
    )
    return Pruned(compact, plan, proof, result.lineage)


def carry_out(network: Network, plan: PrunePlan, *, compensated: bool = True) -> Compact:
    """Cut what a plan lets go, channels first, then residual blocks; `network` stays as it is."""
    graph = ChannelGraph.from_cfg(network.cfg)
    kept = graph.kept_channels(plan.masks())
    full = compensate(network, graph, kept, plan.blocks) if compensated else network
    compact, lineage = remove_blocks(cut(full, graph, kept), plan.blocks)
    return Compact(compact, lineage, full, graph, kept)
