"""Whether integers compute what the quantised network simulates, layer by layer and as a whole."""

from dataclasses import dataclass

import torch
from torch import Tensor

from yolo_dist.compress.quantization.integer.network import IntegerNetwork
from yolo_dist.compress.quantization.integer.operations import IMAGE, IntegerConvolution
from yolo_dist.compress.quantization.network import QuantizedNetwork
from yolo_dist.compress.quantization.rounding import round_half_away

HEAD_UNIT = 2.0**-10
"""What counts as a unit of raw outputs, which lie on no grid."""


@dataclass(frozen=True)
class LayerDifference:
    """How an operation's output differs from the simulated one, when it reads exactly what was simulated.

    Attributes:
        name: of the simulated module.
        largest: difference in units of the output's grid, of 2^-10 for heads.
        equal: share of equal numbers.
    """

    name: str
    largest: int
    equal: float


@dataclass(frozen=True)
class Comparison:
    """Both networks on the same images.

    Attributes:
        layers: in the order of execution.
        raw: largest difference of the heads' raw outputs when every layer reads what came out of the one before.
    """

    layers: tuple[LayerDifference, ...]
    raw: float


@torch.no_grad()
def compare(integers: IntegerNetwork, network: QuantizedNetwork, images: Tensor) -> Comparison:
    """Run both on float images [B, C, H, W] in 0..1; `network` must be in evaluation mode."""
    simulated, raws = _simulate(integers, network, images)
    steps = {IMAGE: integers.image.steps(images)}
    layers = []
    for place, operation in enumerate(integers.operations):
        output = operation(*[steps[source] for source in operation.sources])
        if isinstance(operation, IntegerConvolution) and operation.grid is None:
            difference = round_half_away((operation.values(output) - simulated[place]) / HEAD_UNIT)
        elif operation.grid is not None:
            steps[place] = operation.grid.steps(simulated[place])
            difference = output - steps[place]
        largest, equal = int(difference.abs().max()), float((difference == 0).double().mean())
        layers.append(LayerDifference(operation.name, largest, equal))
    together = zip(integers(images), raws, strict=True)
    return Comparison(tuple(layers), max(float((ours - theirs).abs().max()) for ours, theirs in together))


def _simulate(integers: IntegerNetwork, network: QuantizedNetwork, images: Tensor) -> tuple[list[Tensor], list[Tensor]]:
    """What the simulated network gives for each operation, and its raw outputs."""
    outputs: dict[str, Tensor] = {}
    hooks = []
    for operation in integers.operations:

        def keep(_module: object, _inputs: object, output: Tensor, name: str = operation.name) -> None:
            outputs[name] = output.clone()  # activations in place write over it

        hooks.append(network.get_submodule(operation.name).register_forward_hook(keep))
    try:
        raws = network(images)
    finally:
        for hook in hooks:
            hook.remove()
    return [outputs[operation.name] for operation in integers.operations], raws
