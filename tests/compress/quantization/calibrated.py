"""Quantised networks that can be run."""

from typing import Any

import torch
from small_networks import random_images
from torch import Tensor

from yolo_dist.compress.quantization import QuantizationConfig, QuantizedNetwork, calibrate, quantize
from yolo_dist.darknet.network import Network


def calibrated(network: Network, images: Tensor | None = None, **options: Any) -> QuantizedNetwork:
    """The quantised one of a float network, with the ranges of `images`; `options` are the configuration's."""
    quantized = quantize(network, QuantizationConfig(**options))
    calibrate(quantized, [bytes_of(random_images()) if images is None else images], "minmax")
    return quantized


def bytes_of(images: Tensor) -> Tensor:
    """Images as files have them: whole numbers out of 255."""
    return (images * 255).round() / 255


def signal_to_noise(signal: Tensor, noisy: Tensor) -> float:
    """In decibels."""
    noise = (noisy.detach().double() - signal.detach().double()).square().sum()
    return float(10 * torch.log10(signal.detach().double().square().sum() / noise))
