"""The proof beside every pruned model: the masked full-size and the compact network give the same outputs."""

import json
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from yolo_dist.compress.graph import ChannelGraph
from yolo_dist.compress.pruning.layer_removal import Lineage
from yolo_dist.compress.residual import ResidualBlock
from yolo_dist.darknet.layers import Addition, Convolution
from yolo_dist.darknet.network import Network
from yolo_dist.darknet.shapes import count_macs, count_parameters, count_weight_floats, infer_shapes
from yolo_dist.errors import ProofError, PruneError
from yolo_dist.evaluate.inference import require_finite
from yolo_dist.evaluate.latency import network_latency_ms

TOLERANCE = 1e-4
"""Largest difference of a head's raw output that still counts as equal; summation order costs some bits."""


LATENCY_SECONDS = 1.0
"""Time after which a network's latency has been measured often enough."""


@dataclass(frozen=True)
class Change:
    """One number before and after pruning."""

    before: float
    after: float


@dataclass(frozen=True)
class Agreement:
    """How far the raw head outputs of two networks lie apart.

    Attributes:
        max_abs_difference: the largest difference, in the precision that decided.
        precision: `float64` where in float32 they differ by more than the tolerance.
        float32_difference: the largest difference in float32.
    """

    max_abs_difference: float
    precision: Literal["float32", "float64"]
    float32_difference: float


@dataclass(frozen=True)
class Proof:
    """What was compared, and what both networks measure.

    Attributes:
        images: how many images both networks saw.
        max_abs_difference, precision, float32_difference: see `Agreement`.
        channels: filters of every convolution that lost some; none are left of a removed one.
        map50: accuracy on the validation split before and after, where one was given.
        target_latency_ms: what was asked for; `latency_ms` is a measurement of its own and may exceed it.
    """

    method: str
    percent: float
    threshold: float | None
    images: int
    max_abs_difference: float
    precision: Literal["float32", "float64"]
    float32_difference: float
    tolerance: float
    parameters: Change
    macs: Change
    weight_bytes: Change
    latency_ms: Change
    channels: tuple[dict[str, int], ...]
    map50: Change | None = None
    target_latency_ms: float | None = None

    @property
    def speed_up(self) -> float:
        """How many times as fast the network became."""
        return self.latency_ms.before / self.latency_ms.after

    @property
    def share_of_ideal(self) -> float:
        """Speed-up over the reduction of MACs; 1 where time falls as operations do."""
        return self.speed_up / (self.macs.before / self.macs.after)

    def with_map50(self, before: float, after: float) -> "Proof":
        """The same proof with the accuracies of both networks."""
        return replace(self, map50=Change(before, after))

    def as_json(self) -> dict[str, Any]:
        """A JSON object."""
        return asdict(self) | {"share_of_ideal": self.share_of_ideal}

    def __str__(self) -> str:
        return json.dumps(self.as_json(), indent=2)


def compare_outputs(
    network: Network,
    compact: Network,
    graph: ChannelGraph,
    kept: NDArray[np.bool_],
    images: Tensor,
    blocks: Sequence[ResidualBlock] = (),
) -> Agreement:
    """How far the raw head outputs of the masked full-size and the compact network lie apart.

    Both sum in different orders, so that rounding alone can exceed the tolerance where outputs are large. Then they are
    compared once more in float64: a wrong network stays wrong, rounding disappears.

    Args:
        network: full-size (compensated, if the compact one is; with its statistics, if they were measured anew).
        compact: the network that was cut, read back from what is written of it.
        graph: channel graph of `network`.
        kept: which of its channels stay, bool [channels].
        images: float [B, C, H, W] in 0..1.
        blocks: residual blocks that the compact network does not have; masked, their branches add nothing.

    Raises:
        PruneError: there is no image.
        NonFiniteOutput: the full-size network gives NaN or infinity.
        ProofError: they differ by more than the tolerance, or the compact one gives NaN or infinity.
    """

    if not len(images):
        raise PruneError("the proof compares both networks on images; give at least one")

    def compare(precision: torch.dtype) -> float:
        network.to(precision)
        compact.to(precision)
        with torch.inference_mode(), _evaluating(network), _evaluating(compact), _masked(network, graph, kept, blocks):
            # one image at a time: the memory of large networks is that of their maps
            return float(np.max([_apart(network, compact, image) for image in images.to(precision).split(1)]))

    rounded = difference = compare(torch.float32)
    if TOLERANCE < rounded < math.inf:
        try:
            difference = compare(torch.float64)
        finally:
            network.float()
            compact.float()
    if not difference <= TOLERANCE:
        raise ProofError(
            f"the masked and the pruned network differ by {difference:.3g}, more than {TOLERANCE:g}; nothing was "
            "written; please report the cfg, the method and the percent"
        )
    return Agreement(difference, "float32" if rounded <= TOLERANCE else "float64", rounded)


def _apart(masked: Network, compact: Network, image: Tensor) -> float:
    """Largest difference of any raw output for one image."""
    outputs = masked(image)
    require_finite(outputs)
    differences = [(one - other).abs().max() for one, other in zip(outputs, compact(image), strict=True)]
    return float(torch.stack(differences).max())


def measure_change(before: Network, after: Network, image_size: tuple[int, int]) -> dict[str, Change]:
    """Parameters, MACs, bytes of the weights file and latency (batch 1, one thread, network only) of both."""
    latencies = [network_latency_ms(network, image_size, seconds=LATENCY_SECONDS) for network in (before, after)]
    return {
        "parameters": Change(count_parameters(before.cfg), count_parameters(after.cfg)),
        "macs": Change(count_macs(before.cfg, image_size), count_macs(after.cfg, image_size)),
        "weight_bytes": Change(weight_bytes(before), weight_bytes(after)),
        "latency_ms": Change(*latencies),
    }


def weight_bytes(network: Network) -> int:
    """Size of the network's Darknet weights file."""
    header = 20
    return header + 4 * count_weight_floats(network.cfg)


def changed_channels(before: Network, after: Network, lineage: Lineage | None = None) -> tuple[dict[str, int], ...]:
    """Filters before and after of every convolution that lost some, or all with its layer.

    `lineage` says which layer of `before` each one of `after` was; by default the one in its place.
    """
    shapes = infer_shapes(after.cfg)
    left = {origin: shapes[place].out_channels for place, origin in enumerate(lineage or range(len(shapes)))}
    changes = (
        {"layer": index, "before": shape.out_channels, "after": left.get(index, 0)}
        for index, (shape, layer) in enumerate(zip(infer_shapes(before.cfg), before.layers, strict=True))
        if isinstance(layer, Convolution)
    )
    return tuple(change for change in changes if change["before"] != change["after"])


@contextmanager
def _masked(
    network: Network, graph: ChannelGraph, kept: NDArray[np.bool_], blocks: Sequence[ResidualBlock]
) -> Iterator[None]:
    """Cut channels of convolutions, and of sums that may have an activation, give zero while the context lasts."""
    silent = {block.feeding for block in blocks}

    def mask_outputs(index: int) -> Any:
        staying = kept[graph.outputs[index]] & (index not in silent)
        mask = torch.from_numpy(staying).view(1, -1, 1, 1)
        return lambda _module, _inputs, output: output * mask

    handles = [
        layer.register_forward_hook(mask_outputs(index))
        for index, layer in enumerate(network.layers)
        if isinstance(layer, Convolution | Addition)
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def _evaluating(module: nn.Module) -> Iterator[None]:
    training = module.training
    module.eval()
    try:
        yield
    finally:
        module.train(training)
