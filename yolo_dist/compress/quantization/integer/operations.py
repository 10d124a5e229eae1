"""What an integer machine executes: operations on int64 maps [B, C, H, W], one after the other.

Each is data: integer arrays, shifts and zero points. Nothing in here is a floating-point number but the scales, which
say what the integers mean and take no part in any computation.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from pydantic import ConfigDict
from torch import Tensor

from yolo_dist.compress.quantization.integer.rescaling import CHANNELS, IntegerGrid, Rescaling, shift_right

IMAGE = -1
"""The source of what reads the image."""


@dataclass(frozen=True)
class Operation(ABC):
    """What all operations have.

    Attributes:
        name: of the module of the simulated network that gives the same numbers.
        sources: the operations it reads, by their place in the network, or `IMAGE`.
        shape: channels, height and width of its output for one image of the network's size.
        grid: of its output; None for the accumulators that a head reads.
    """

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(arbitrary_types_allowed=True, extra="forbid")

    name: str
    sources: tuple[int, ...]
    shape: tuple[int, int, int]
    grid: IntegerGrid | None

    @property
    def rescalings(self) -> tuple[Rescaling, ...]:
        """Those it makes."""
        return ()

    @property
    def multiplies_to_rescale(self) -> bool:
        """Whether it needs a multiplication to go from one scale to another."""
        return any(rescale.multiplies for rescale in self.rescalings)

    @abstractmethod
    def __call__(self, *inputs: Tensor) -> Tensor:
        """The output for the outputs of its sources, int64 [B, C, H, W]."""


@dataclass(frozen=True)
class IntegerConvolution(Operation):
    """A convolution of integers: (Σ (w − w₀)(x − x₀)) · 2^alignment + bias, rescaled unless a head reads it.

    Attributes:
        weight: int64 [O, I / groups, h, w].
        weight_zero_point: w₀ of each filter, int64 [O].
        bias: in units of the aligned accumulators, int64 [O].
        alignment: int64 [O]: bits that the sums are shifted left before the bias is added, where the bias would
            otherwise be coarse; negative, right, where it would otherwise not fit.
        source_zero_point: x₀; the padding is the real number 0 and thus x₀ too.
        stride, padding, dilation, groups: as those of a convolution, in pixels and channels.
        rescale: None where a head reads the accumulators.
        units: the real number that an accumulator of each filter counts, if a head reads it; negative where batch
            normalisation changes the sign.
    """

    weight: Tensor
    weight_zero_point: Tensor
    bias: Tensor
    alignment: Tensor
    source_zero_point: int
    stride: int
    padding: int
    dilation: int
    groups: int
    rescale: Rescaling | None
    units: tuple[float, ...] = ()
    kind: Literal["convolution"] = "convolution"

    @property
    def rescalings(self) -> tuple[Rescaling, ...]:
        """Its one, if no head reads it."""
        return () if self.rescale is None else (self.rescale,)

    def __call__(self, *inputs: Tensor) -> Tensor:
        """The convolution of the only input."""
        (features,) = inputs
        weight = self.weight - self.weight_zero_point.view(-1, 1, 1, 1)
        sums = F.conv2d(
            features - self.source_zero_point, weight, None, self.stride, self.padding, self.dilation, self.groups
        )
        accumulators = shift_right(sums, -self.alignment.view(CHANNELS)) + self.bias.view(CHANNELS)
        return accumulators if self.rescale is None else self.rescale(accumulators)

    def values(self, accumulators: Tensor) -> Tensor:
        """The raw output that accumulators for a head stand for, float32 of the same shape."""
        return (accumulators * torch.tensor(self.units, dtype=torch.float64).view(CHANNELS)).float()


@dataclass(frozen=True)
class IntegerLookup(Operation):
    """An activation that does not clamp, as a table.

    Attributes:
        lowest: the step that the table starts with.
        table: int64, as long as the source's grid.
    """

    lowest: int
    table: Tensor
    kind: Literal["lookup"] = "lookup"

    def __call__(self, *inputs: Tensor) -> Tensor:
        """The table's entry for each number."""
        (features,) = inputs
        return self.table[features - self.lowest]


@dataclass(frozen=True)
class IntegerSum(Operation):
    """A shortcut: Σ (xᵢ − zero pointᵢ) · multiplierᵢ · 2^alignmentᵢ, rescaled once.

    Attributes:
        source_zero_points, multipliers, alignments: one an input; alignments are shifts to the left.
        rescale: of the sum.
    """

    source_zero_points: tuple[int, ...]
    multipliers: tuple[int, ...]
    alignments: tuple[int, ...]
    rescale: Rescaling
    kind: Literal["sum"] = "sum"

    @property
    def rescalings(self) -> tuple[Rescaling, ...]:
        """That of the sum."""
        return (self.rescale,)

    @property
    def multiplies_to_rescale(self) -> bool:
        """Whether inputs are aligned by more than shifts."""
        return super().multiplies_to_rescale or not set(self.multipliers) <= {0, 1}

    def __call__(self, *inputs: Tensor) -> Tensor:
        """The sum of maps of one shape."""
        terms = zip(inputs, self.source_zero_points, self.multipliers, self.alignments, strict=True)
        total = torch.zeros_like(inputs[0])
        for features, zero_point, multiplier, alignment in terms:
            total += (features - zero_point) * multiplier << alignment
        return self.rescale(total)


@dataclass(frozen=True)
class IntegerConcatenation(Operation):
    """A route of several inputs, or of one of `groups` slices of each, every one rescaled to the output's grid."""

    source_zero_points: tuple[int, ...]
    groups: int
    group_id: int
    rescales: tuple[Rescaling, ...]
    kind: Literal["concatenation"] = "concatenation"

    @property
    def rescalings(self) -> tuple[Rescaling, ...]:
        """One an input."""
        return self.rescales

    def __call__(self, *inputs: Tensor) -> Tensor:
        """The maps along the channels."""
        parts = zip(inputs, self.source_zero_points, self.rescales, strict=True)
        return torch.cat(
            [
                rescale(features.chunk(self.groups, 1)[self.group_id] - zero_point)
                for features, zero_point, rescale in parts
            ],
            1,
        )


@dataclass(frozen=True)
class IntegerAverage(Operation):
    """The average over the map: the sum, divided by the number of cells and rescaled in one rounding."""

    source_zero_point: int
    rescale: Rescaling
    kind: Literal["average"] = "average"

    @property
    def rescalings(self) -> tuple[Rescaling, ...]:
        """That of the sum."""
        return (self.rescale,)

    def __call__(self, *inputs: Tensor) -> Tensor:
        """[B, C, H, W] → [B, C, 1, 1]."""
        (features,) = inputs
        total = (features - self.source_zero_point).sum((2, 3), keepdim=True)
        return self.rescale(total, parts=features[0, 0].numel())


@dataclass(frozen=True)
class IntegerProduct(Operation):
    """A map times a gate of each of its channels: (x − x₀)(g − g₀), rescaled."""

    source_zero_points: tuple[int, int]
    rescale: Rescaling
    kind: Literal["product"] = "product"

    @property
    def rescalings(self) -> tuple[Rescaling, ...]:
        """That of the products."""
        return (self.rescale,)

    def __call__(self, *inputs: Tensor) -> Tensor:
        """[B, C, H, W] and [B, C, 1, 1] → [B, C, H, W]."""
        (features, gate), (first, second) = inputs, self.source_zero_points
        return self.rescale((features - first) * (gate - second))


@dataclass(frozen=True)
class IntegerMaximum(Operation):
    """Maximum pooling; `before` and `after` are rows and columns of padding, which never wins."""

    window: int
    stride: int
    before: int
    after: int
    kind: Literal["maximum"] = "maximum"

    def __call__(self, *inputs: Tensor) -> Tensor:
        """The largest step of each window."""
        (features,) = inputs
        never = torch.iinfo(features.dtype).min
        padded = F.pad(features, (self.before, self.after, self.before, self.after), value=never)
        windows = padded.unfold(2, self.window, self.stride).unfold(3, self.window, self.stride)
        return windows.amax((4, 5))


@dataclass(frozen=True)
class IntegerUpsampling(Operation):
    """Every cell `factor` times in both directions."""

    factor: int
    kind: Literal["upsampling"] = "upsampling"

    def __call__(self, *inputs: Tensor) -> Tensor:
        """[B, C, H, W] → [B, C, factor·H, factor·W]."""
        (features,) = inputs
        return features.repeat_interleave(self.factor, 2).repeat_interleave(self.factor, 3)


@dataclass(frozen=True)
class IntegerSlice(Operation):
    """One of `groups` equal slices of the channels, unchanged; with one group the whole map."""

    groups: int
    group_id: int
    kind: Literal["slice"] = "slice"

    def __call__(self, *inputs: Tensor) -> Tensor:
        """The slice."""
        (features,) = inputs
        return features.chunk(self.groups, 1)[self.group_id]
