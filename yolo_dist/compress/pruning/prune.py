"""From a network and a request to a smaller network and its proof."""

from collections.abc import Iterable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from yolo_dist.compress.graph import ChannelGraph
from yolo_dist.compress.importance import MEASURES, Basis, BatchLoss, Importance
from yolo_dist.compress.pruning.candidates import require_differences
from yolo_dist.compress.pruning.carry_out import carry_out
from yolo_dist.compress.pruning.layer_removal import Lineage
from yolo_dist.compress.pruning.method import METHODS, PruneConfig
from yolo_dist.compress.pruning.plan import PrunePlan
from yolo_dist.compress.pruning.proof import TOLERANCE, Proof, changed_channels, compare_outputs, measure_change
from yolo_dist.compress.pruning.readiness import Damage, check_ready
from yolo_dist.compress.pruning.reestimation import reestimate_batchnorm, with_same_statistics
from yolo_dist.compress.pruning.selection import Accuracy, Planner, select_plan
from yolo_dist.compress.quantization import QuantizedNetwork
from yolo_dist.darknet.network import Network
from yolo_dist.darknet.weights import read_back
from yolo_dist.errors import AlreadyQuantized, PruneError
from yolo_dist.freed_memory import return_freed_memory


@dataclass(frozen=True)
class Pruned:
    """A compact network as its files give it, the plan it follows, and the proof that it equals the masked one."""

    network: Network
    plan: PrunePlan
    proof: Proof
    lineage: Lineage
    """Which layer of the network before each of its layers was."""

    @property
    def warning(self) -> str | None:
        """One line where the request came to nothing; None where something was cut."""
        if self.proof.channels:
            return None
        return (
            f"warning: method {self.plan.method} cut nothing, so the network is as large as before; ask for more by "
            "percent, target or shortcuts, or round less (round_to)"
        )


def make_plan(network: Network, config: PruneConfig, calibration: Iterable[BatchLoss] = ()) -> PrunePlan:
    """What a method would cut at a percent; nothing is changed.

    Args:
        network: what would be cut.
        config: how much of it, and which of its channels first.
        calibration: losses on training images, for importance `taylor`.

    Raises:
        PruneError: weights are not finite, all candidates are equally important, or what importance and method raise.
    """
    return planner(network, config, calibration)(config)


def choose_plan(
    network: Network,
    config: PruneConfig,
    image_size: tuple[int, int],
    accuracy: Accuracy | None = None,
    calibration: Iterable[BatchLoss] = (),
) -> PrunePlan:
    """The plan that a request leads to: at its percent, towards its target, or the best of several; see `select_plan`.

    Raises:
        PruneError: as `make_plan`, or the request cannot be met.
    """
    plans = planner(network, config, calibration, image_size)
    return select_plan(network, plans, config, image_size, accuracy)


def planner(
    network: Network,
    config: PruneConfig,
    calibration: Iterable[BatchLoss] = (),
    image_size: tuple[int, int] | None = None,
) -> Planner:
    """Plans for one network by the importance that `config` names; graph and importance are computed once.

    Operations are those of an image of the given (width, height), by default of the cfg's.
    """
    graph, importance = prepare(network, config.importance, Basis(config.seed, calibration), image_size)

    def plan(request: PruneConfig) -> PrunePlan:
        planned = METHODS[request.method](graph, importance, request)
        require_differences(importance, planned.channels, config.importance)
        return replace(planned, importance=config.importance)

    return plan


def prepare(
    network: Network,
    measure: str = "gamma",
    basis: Basis | None = None,
    image_size: tuple[int, int] | None = None,
) -> tuple[ChannelGraph, Importance]:
    """What planning needs of a network: its channel graph, and the importance of every channel.

    Args:
        network: what would be cut.
        measure: name of the importance.
        basis: what else it goes by.
        image_size: (width, height) of the graph's input; the cfg's by default.

    Raises:
        PruneError: weights are not finite.
        AlreadyQuantized: the network is quantised.
    """
    if isinstance(network, QuantizedNetwork):
        raise AlreadyQuantized("a quantised network cannot be pruned; prune the float bundle it was made from")
    graph = ChannelGraph.from_cfg(network.cfg if image_size is None else network.cfg.with_size(image_size))
    require_finite_weights(network)
    return graph, MEASURES[measure](network, list(graph.convolutions()), basis or Basis())


def require_finite_weights(network: Network, remedy: str = "train the network again") -> None:
    """Refuse a network with NaN or infinity in it.

    Raises:
        PruneError: names the first layer that has one.
    """
    for index, layer in enumerate(network.layers):
        if not all(bool(torch.isfinite(values).all()) for values in layer.state_dict().values()):
            raise PruneError(f"{network.cfg.place(index)} has weights that are not finite; {remedy}")


def prune(
    network: Network,
    config: PruneConfig,
    images: Tensor,
    image_size: tuple[int, int],
    training_batches: Iterable[Tensor] = (),
    accuracy: Accuracy | None = None,
    damage: Damage | None = None,
    calibration: Iterable[BatchLoss] = (),
) -> Pruned:
    """Cut a network and prove the result.

    Args:
        network: the network to cut; it stays as it is.
        config: what to cut.
        images: float [B, C, H, W] in 0..1, on which masked and compact network are compared.
        image_size: (width, height) for MACs and latency.
        training_batches: images for `config.reestimate_images`.
        accuracy: measures plans on a validation split, for `max_map_drop` and method eagle-eye.
        damage: says what a refused plan would have cost.
        calibration: see `make_plan`.

    Raises:
        NotSparseEnough: see `check_ready`; not with `force`.
        LayerWouldVanish, PruneError: the method cannot meet the request, or re-estimation gives no numbers.
        ProofError: masked and compact network disagree.
    """
    plans = planner(network, config, calibration, image_size)
    plan = select_plan(network, plans, config, image_size, accuracy)
    if not (config.force or config.measures_accuracy):
        check_ready(network, plans, config, plan, damage)
    result = carry_out(network, plan, compensated=config.compensate)
    result = replace(result, network=read_back(result.network))
    compact, full = result.network, result.full
    if config.reestimate_images:
        reestimate_batchnorm(compact, training_batches)
        require_finite_weights(compact, "look for the training image that gives such statistics")
        full = with_same_statistics(result)
    agreement = compare_outputs(full, compact, result.graph, result.kept, images, plan.blocks)
    return_freed_memory()  # maps of all sizes lay between the weights, which for a large network is most of its size
    proof = Proof(
        method=plan.method,
        percent=plan.percent,
        threshold=plan.threshold,
        images=len(images),
        max_abs_difference=agreement.max_abs_difference,
        precision=agreement.precision,
        float32_difference=agreement.float32_difference,
        tolerance=TOLERANCE,
        channels=changed_channels(network, compact, result.lineage),
        target_latency_ms=config.target_latency_ms,
        **measure_change(network, compact, image_size),
    )
    return_freed_memory()
    return Pruned(compact, plan, proof, result.lineage)
