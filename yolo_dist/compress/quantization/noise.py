"""What quantisation adds to every layer's output: signal-to-noise ratios against the float network."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from yolo_dist.compress.quantization.network import QuantizedNetwork, as_float
from yolo_dist.darknet.cfg import Yolo
from yolo_dist.errors import NotCalibrated


@dataclass(frozen=True)
class LayerNoise:
    """One layer's output, end to end: noise of the layers before it is part of its own.

    Attributes:
        layer: index in the cfg.
        kind: name of its section in the cfg; the output of a `yolo` layer is a head's raw output.
        signal: mean square of what the float network gives.
        noise: mean square of the difference.
    """

    layer: int
    kind: str
    signal: float
    noise: float

    @property
    def decibels(self) -> float:
        """10·log₁₀(signal / noise); infinite where both networks agree, minus infinity where only one is silent."""
        if not self.noise:
            return math.inf
        return 10 * math.log10(self.signal / self.noise) if self.signal else -math.inf


@dataclass(frozen=True)
class NoiseReport:
    """The noise in all layers of one network.

    Attributes:
        images: on which it was measured.
        layers: in the cfg's order.
    """

    images: int
    layers: tuple[LayerNoise, ...]

    @property
    def heads(self) -> tuple[LayerNoise, ...]:
        """Those whose outputs are the network's."""
        return tuple(one for one in self.layers if one.kind == Yolo.section)

    def as_json(self) -> dict[str, Any]:
        """A JSON object; `snr_db` is null where it is not finite."""
        rows = [
            {
                "layer": one.layer,
                "kind": one.kind,
                "signal": one.signal,
                "noise": one.noise,
                "snr_db": one.decibels if math.isfinite(one.decibels) else None,
            }
            for one in self.layers
        ]
        return {"images": self.images, "layers": rows}


@torch.no_grad()
def measure_noise(network: QuantizedNetwork, batches: Iterable[Tensor]) -> NoiseReport:
    """Run a quantised network and the float one with its weights on the same images, and compare all layers.

    Only one batch's features are in memory at a time.

    Args:
        network: with ranges; is not changed, whatever its mode is.
        batches: of images, float [B, C, H, W] in 0..1.

    Raises:
        NotCalibrated: the network has no ranges, or there is no image.
    """
    plain, training = as_float(network).eval(), [module for module in network.modules() if module.training]
    every = range(len(network.layers))
    sums = torch.zeros(len(every), 2, dtype=torch.float64)
    sizes, images = [0] * len(every), 0
    network.eval()
    try:
        for batch in batches:
            _, expected = plain.forward_features(batch, every)
            _, found = network.forward_features(batch, every)
            for layer, signal in expected.items():
                sums[layer, 0] += signal.double().square().sum().cpu()
                sums[layer, 1] += (found[layer].double() - signal.double()).square().sum().cpu()
                sizes[layer] += signal.numel()
            images += len(batch)
    finally:
        for module in training:
            module.training = True
    if not images:
        raise NotCalibrated("noise is measured on images, and there are none; give some")
    rows = zip(network.cfg.layers, sums.tolist(), sizes, strict=True)
    return NoiseReport(
        images,
        tuple(
            LayerNoise(index, layer.section, signal / size, noise / size)
            for index, (layer, (signal, noise), size) in enumerate(rows)
        ),
    )
