"""The schemes: how a weight tensor becomes whole numbers, and which grids activations lie on.

A new scheme is an entry of `SCHEMES`.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from yolo_dist.compress.quantization.grid import Grid, GridRule, lay_grid, nearest_power_of_two

CHANNEL_SHAPE = (-1, 1, 1, 1)


@dataclass(frozen=True)
class WeightRule:
    """What a scheme is asked about a convolution's weights.

    Attributes:
        bits: 2^bits whole numbers.
        symmetric: whether 0 is in the middle of them.
        per_channel: whether every filter has a scale of its own.
        power_of_two: whether scales are 2^k.
    """

    bits: int
    symmetric: bool = True
    per_channel: bool = False
    power_of_two: bool = False


@dataclass(frozen=True)
class QuantizedWeights:
    """Weights (steps − zero point)·scale.

    Attributes:
        steps: whole numbers in float32 [O, I, h, w]; differentiable with respect to the weights.
        scale: float32 [O, 1, 1, 1] or a scalar.
        zero_point: of the same shape.
    """

    steps: Tensor
    scale: Tensor
    zero_point: Tensor

    @property
    def values(self) -> Tensor:
        """The weights themselves, differentiable."""
        return (self.steps - self.zero_point).mul_(self.scale)


WeightQuantizer = Callable[[Tensor, WeightRule], QuantizedWeights]


@dataclass(frozen=True)
class Scheme:
    """How weights are quantised, and where the grid of an activation's output lies.

    Attributes:
        weights: of a convolution, float [O, I, h, w].
        activations: the rule for what an activation gives; None as the configuration says.
        sums: the rule for linear outputs and sums, which may be negative; None as the configuration says.
    """

    weights: WeightQuantizer
    activations: GridRule | None = None
    sums: GridRule | None = None


def google_weights(weight: Tensor, rule: WeightRule) -> QuantizedWeights:
    """Uniform steps over the range of the current weights (Jacob et al. 2018; Krishnamoorthi 2018)."""
    detached = weight.detach().float()
    if rule.per_channel:
        low, high = detached.amin((1, 2, 3)).view(CHANNEL_SHAPE), detached.amax((1, 2, 3)).view(CHANNEL_SHAPE)
    else:
        low, high = detached.amin(), detached.amax()
    grid = lay_grid(low, high, rule.bits, "symmetric" if rule.symmetric else "asymmetric", rule.power_of_two)
    return QuantizedWeights(grid.steps(weight), grid.scale, grid.zero_point)


def dorefa_weights(weight: Tensor, rule: WeightRule) -> QuantizedWeights:
    """2·Q(tanh w / (2·max|tanh w|) + ½) − 1, times max|tanh w| (Zhou et al. 2016, "DoReFa-Net", eq. 9).

    As whole numbers they are odd: 2n − (2^bits − 1), so 0 is not among them.
    """
    squashed = weight.float().tanh()
    magnitude = squashed.detach().abs()
    largest = magnitude.amax((1, 2, 3)).view(CHANNEL_SHAPE) if rule.per_channel else magnitude.amax()
    largest = torch.where(largest > 0, largest, torch.ones_like(largest))
    count = 2**rule.bits - 1
    unit = Grid(torch.tensor(1 / count, device=weight.device), torch.zeros((), device=weight.device), 0, count)
    steps = 2 * unit.steps(squashed / (2 * largest) + 0.5) - count
    scale = largest / count
    return QuantizedWeights(steps, nearest_power_of_two(scale) if rule.power_of_two else scale, torch.zeros_like(scale))


SCHEMES: dict[str, Scheme] = {
    "google": Scheme(google_weights),
    "dorefa": Scheme(dorefa_weights, activations="positive", sums="symmetric"),
}
