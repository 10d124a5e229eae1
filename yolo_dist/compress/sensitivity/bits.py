"""What each layer can lose of its precision: one quantised while all others stay float, and all of them at once."""

from collections.abc import Collection
from copy import deepcopy
from dataclasses import dataclass
from typing import Annotated

from annotated_types import Ge
from pydantic import Field, field_validator

from yolo_dist.compress.pruning.prediction import IMAGES
from yolo_dist.compress.pruning.trials import Outcome, TrialSetup, outcome_of, training_batches
from yolo_dist.compress.quantization import QuantizationConfig, QuantizedNetwork, calibrate, quantize
from yolo_dist.compress.quantization.config import Bits
from yolo_dist.compress.quantization.ranges import RangeMeasure
from yolo_dist.compress.sensitivity.record import PlannedCurve, PlannedTrial, Question
from yolo_dist.config import Config
from yolo_dist.darknet.network import Network
from yolo_dist.darknet.shapes import infer_shapes
from yolo_dist.evaluate.latency import computing_threads


@dataclass(frozen=True)
class Precision:
    """Layers and how they are quantised; all others stay float.

    Attributes:
        layers: indices in the cfg; none leaves the network as it is.
        config: with the bits to try.
        ranges: how those of outputs are measured.
        calibration_images: training images on which.
    """

    layers: tuple[int, ...]
    config: QuantizationConfig
    ranges: RangeMeasure
    calibration_images: int


class BitsConfig(Config):
    """How layers are quantised, and with how many bits, to see what it costs."""

    bits: Annotated[tuple[Bits, ...], Field(min_length=1)] = (8, 4, 2)
    """Of a layer's weights and of its output."""
    quantization: QuantizationConfig = QuantizationConfig()
    """Everything but those bits."""
    ranges: RangeMeasure = "minmax"
    """How the ranges of outputs are measured, as `quantize` does."""
    images: Annotated[int, Ge(1)] = IMAGES
    """Of the validation split, on which accuracy is measured."""
    calibration_images: Annotated[int, Ge(1)] = 32
    """Training images on which ranges are measured, anew in every trial."""

    @field_validator("quantization")
    @classmethod
    def _without_bits(cls, quantization: QuantizationConfig) -> QuantizationConfig:
        if set(quantization.model_fields_set) & {"weight_bits", "activation_bits"}:
            raise ValueError("weight_bits and activation_bits are what bits lists; leave them out")
        return quantization

    @property
    def needs_training_images(self) -> bool:
        """Whether trials need images of the training split."""
        return True

    def question(self, network: Network) -> Question[Precision]:
        """The precisions of a network to try.

        Raises:
            AlreadyQuantized: it is quantised.
        """
        quantizable = _changed(network, quantize(network, self.quantization))
        shapes = infer_shapes(network.cfg)

        def curve(named: tuple[int, ...], layers: tuple[int, ...]) -> PlannedCurve[Precision]:
            channels = sum(shapes[layer].out_channels for layer in layers)
            trials = (PlannedTrial(bits, bits, self._precision(layers, bits)) for bits in sorted(set(self.bits))[::-1])
            return PlannedCurve(named, channels, tuple(trials))

        return Question(
            unit="bits",
            method=self.quantization.scheme,
            attempt=try_precision,
            nothing=self._precision((), max(self.bits)),
            together=curve((), quantizable),
            sets=[curve((layer,), (layer,)) for layer in quantizable],
            settings=self.model_dump(mode="json", exclude={"bits", "images"}),
        )

    def _precision(self, layers: tuple[int, ...], bits: int) -> Precision:
        config = self.quantization.model_copy(update={"weight_bits": bits, "activation_bits": bits})
        return Precision(layers, config, self.ranges, self.calibration_images)


def try_precision(setup: TrialSetup, precision: Precision) -> Outcome:
    """What a network is worth with some layers quantised; the network as it is, if there are none.

    Raises:
        NotCalibrated: the setup has no training images.
        NonFiniteOutput: the network gives NaN or infinity.
    """
    with computing_threads(1):  # the last bits of a sum depend on how many threads share it
        if not precision.layers:
            return outcome_of(setup, setup.network)
        network = quantize_layers(setup.network, precision.config, precision.layers)
        calibrate(network, training_batches(setup, precision.calibration_images), precision.ranges)
        return outcome_of(setup, network)


def quantize_layers(network: Network, config: QuantizationConfig, layers: Collection[int]) -> QuantizedNetwork:
    """A network that is quantised in some layers and float in all others, without ranges yet.

    The image is on its grid only where all layers are.
    """
    quantized = quantize(network, config)
    others = set(_changed(network, quantized)) - set(layers)
    for layer in others:
        quantized.layers[layer] = deepcopy(network.layers[layer])
    quantized.image.active = not others
    return quantized


def _changed(network: Network, quantized: QuantizedNetwork) -> tuple[int, ...]:
    """Layers that quantisation changes: all but those that only pass numbers on."""
    pairs = zip(network.layers, quantized.layers, strict=True)
    return tuple(index for index, (before, after) in enumerate(pairs) if type(before) is not type(after))
