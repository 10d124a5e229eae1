"""What quantisation is told."""

from typing import Annotated, Literal, Self

from annotated_types import Ge, Gt, Le
from pydantic import field_validator, model_validator
from torch import Tensor

from yolo_dist.compress.quantization.grid import GridRule
from yolo_dist.compress.quantization.ranges import RangeMeasure
from yolo_dist.compress.quantization.schemes import SCHEMES, QuantizedWeights, WeightRule
from yolo_dist.config import Config

Bits = Annotated[int, Ge(2), Le(16)]
EndBits = Bits | Literal["float"]


class QuantizationConfig(Config):
    """How numbers become whole ones. The defaults are those of the original; `symmetric: weights`, `per_channel` and
    `fold_batchnorm` together are the form that int8 runtimes are fast in."""

    scheme: str = "google"
    """Name of a registered scheme: `google` or `dorefa`."""
    weight_bits: Bits = 8
    activation_bits: Bits = 8
    """Of every layer's output; the image has the 8 bits it comes with."""
    symmetric: bool | Literal["weights"] = True
    """Scheme google: whether grids are signed with zero in the middle, for weights and activations or weights alone."""
    per_channel: bool = False
    """Whether every filter has its own scale."""
    power_of_two: bool = False
    """Scales 2^k: rescaling is a shift."""
    fold_batchnorm: bool = False
    """Quantise filters as they are once batch normalisation is folded into them, in training too."""
    bias_bits: Annotated[int, Ge(2), Le(32)] = 32
    """Bits of biases, those of folded batch normalisation too."""
    first_bits: EndBits | None = None
    """Of the first convolution's weights; `float` leaves them."""
    last_bits: EndBits | None = None
    """Of the weights of the convolutions that feed the heads; `float` leaves them."""

    @field_validator("scheme")
    @classmethod
    def _registered(cls, name: str) -> str:
        if name not in SCHEMES:
            raise ValueError(f"unknown scheme; there are {', '.join(sorted(SCHEMES))}")
        return name

    @model_validator(mode="after")
    def _used(self) -> Self:
        if self.scheme == "dorefa" and self.symmetric is not True:
            raise ValueError("scheme dorefa does not use symmetric")
        return self

    @property
    def settled(self) -> "QuantizationConfig":
        """What stays true of the network afterwards, without how it came about."""
        return self.part(QuantizationConfig)

    def quantize_weights(self, weight: Tensor, bits: int) -> QuantizedWeights:
        """Weights float [O, I, h, w] as whole numbers of so many bits, differentiable."""
        rule = WeightRule(bits, self.symmetric is not False, self.per_channel, self.power_of_two)
        return SCHEMES[self.scheme].weights(weight, rule)

    @property
    def activation_rule(self) -> GridRule:
        """Where the grid of what an activation gives lies."""
        return SCHEMES[self.scheme].activations or self._affine

    @property
    def sum_rule(self) -> GridRule:
        """Where the grid of linear outputs and sums lies."""
        return SCHEMES[self.scheme].sums or self._affine

    @property
    def _affine(self) -> GridRule:
        return "symmetric" if self.symmetric is True else "asymmetric"


class QuantizedTrainingConfig(QuantizationConfig):
    """Quantisation as a block of a training stage."""

    calibration_images: Annotated[int, Ge(1)] = 64
    """Training images that give activations their first ranges."""
    freeze_ranges: Annotated[float, Gt(0)] = 0.1
    """When activations' ranges stop following the batches: up to 1 a share of the optimizer steps, else a number."""
    freeze_statistics: Annotated[float, Gt(0)] = 0.9
    """When batch-norm statistics stop following the batches, and are used in place of the batch's own."""


class QuantizeConfig(QuantizationConfig):
    """Quantisation of a trained network without training."""

    calibration_images: Annotated[int, Ge(1)] = 128
    """Training images on which ranges are measured."""
    ranges: RangeMeasure = "minmax"
    """How: `minmax` over all of them; `moving-average` of their minima and maxima; `percentile` leaves out the most
    extreme 0.01 %; `mse` takes the range that changes the numbers least."""
