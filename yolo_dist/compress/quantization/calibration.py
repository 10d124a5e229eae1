"""Calibration: the ranges of activations, measured on images while nothing is quantised."""

from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor

from yolo_dist.compress.quantization.activations import ActivationQuantizer
from yolo_dist.compress.quantization.network import QuantizedNetwork
from yolo_dist.compress.quantization.ranges import (
    Histogram,
    MinMax,
    MovingAverage,
    RangeMeasure,
    RangeObserver,
    least_error,
    without_extremes,
)
from yolo_dist.errors import NonFiniteOutput, NotCalibrated


@torch.no_grad()
def calibrate(network: QuantizedNetwork, batches: Iterable[Tensor], measure: RangeMeasure) -> None:
    """Give every activation of a network its range.

    Args:
        network: its mode stays; batch norms use their running statistics.
        batches: of images, float [B, C, H, W] in 0..1.
        measure: how ranges follow from what is seen. `percentile` and `mse` see images twice and keep them meanwhile.

    Raises:
        NotCalibrated: there is no image.
        NonFiniteOutput: an activation is NaN or infinite; names it.
    """
    again = measure in ("percentile", "mse")
    if again:
        batches = list(batches)
    quantizers = dict(network.quantizers())
    rough = MovingAverage if measure == "moving-average" else MinMax
    _observe(network, batches, quantizers, [rough() for _ in quantizers])
    if again:
        choices = [without_extremes if measure == "percentile" else least_error(q.lay) for q in quantizers.values()]
        histograms = [
            Histogram(q.low.cpu(), q.high.cpu(), choice) for q, choice in zip(quantizers.values(), choices, strict=True)
        ]
        _observe(network, batches, quantizers, histograms)


def _observe(
    network: QuantizedNetwork,
    batches: Iterable[Tensor],
    quantizers: Mapping[str, ActivationQuantizer],
    observers: Sequence[RangeObserver],
) -> None:
    training = [module for module in network.modules() if module.training]
    network.eval()
    for quantizer, observer in zip(quantizers.values(), observers, strict=True):
        quantizer.active, quantizer.watch = False, observer.observe
    seen = False
    try:
        for images in batches:
            seen = True
            network(images)
    finally:
        for quantizer in quantizers.values():
            quantizer.active, quantizer.watch = True, None
        for module in training:
            module.training = True
    if not seen:
        raise NotCalibrated("ranges are measured on images, and there are none; set calibration_images")
    for (name, quantizer), observer in zip(quantizers.items(), observers, strict=True):
        low, high = observer.range()
        if not (low.isfinite() and high.isfinite()):
            raise NonFiniteOutput(f"{name} is not finite on an image; the weights are useless: train or load others")
        quantizer.set_range(low, high)
