"""Small networks with ranges, and what a file of theirs gives in ONNX Runtime."""

import warnings
from typing import Any

import numpy as np
import onnxruntime
import torch
from numpy.typing import NDArray
from onnx import ModelProto
from small_networks import random_images, random_network

from yolo_dist.bundle import Bundle
from yolo_dist.compress.quantization import QuantizationConfig, QuantizedNetwork, calibrate, quantize
from yolo_dist.darknet.cfg import Layer
from yolo_dist.darknet.network import Network
from yolo_dist.export.onnx import ExportConfig, export_onnx
from yolo_dist.export.runtime import session_options

SIZE = (32, 32)
FAST: dict[str, Any] = {"symmetric": "weights", "per_channel": True, "fold_batchnorm": True}
"""The form that int8 runtimes are fast in."""


def quantized_network(*layers: Layer, seed: int = 0, **config: Any) -> QuantizedNetwork:
    """A network of these layers with random numbers and ranges of noise."""
    return calibrated(random_network(*layers, seed=seed), **config)


def calibrated(network: Network, size: tuple[int, int] = SIZE, **config: Any) -> QuantizedNetwork:
    """A network's quantised one with ranges of noise."""
    quantized = quantize(network, QuantizationConfig(**config))
    calibrate(quantized, [random_images(4, size, seed=1)], "minmax")
    return quantized.eval()


def exported(network: Network, size: tuple[int, int] = SIZE, **config: Any) -> ModelProto:
    """The file of a network, of the format that goes with it."""
    classes = tuple(f"class {number}" for number in range(network.heads[0].classes))
    format_ = "onnx-int8" if isinstance(network, QuantizedNetwork) else "onnx"
    return export_onnx(Bundle(network, classes, size), ExportConfig(**{"format": format_, "output": "raw"} | config))


def run_file(model: ModelProto, images: NDArray[np.uint8], optimised: bool = True) -> list[NDArray[np.float32]]:
    """What ONNX Runtime computes, operator by operator as they stand in the file unless `optimised`."""
    options = session_options()
    if not optimised:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    outputs: list[NDArray[np.float32]] = session.run(None, {"images": images})
    return outputs


def photos(count: int = 2, size: tuple[int, int] = SIZE, seed: int = 2) -> NDArray[np.uint8]:
    """Noise, uint8 [count, 3, H, W]."""
    return np.random.default_rng(seed).integers(0, 256, (count, 3, size[1], size[0]), dtype=np.uint8)


def run_network(network: Network, images: NDArray[np.uint8]) -> list[NDArray[np.float32]]:
    """What the network computes."""
    with torch.no_grad():
        return [raw.numpy() for raw in network(torch.from_numpy(images).float() / 255)]


def run_in_another_order(network: Network, images: NDArray[np.uint8]) -> list[NDArray[np.float32]]:
    """What the network computes where its float sums go in another order: how near anything else can come to it."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="TF32 acceleration")  # of GPUs that nobody asked for
        with torch.backends.mkldnn.flags(enabled=False):
            return run_network(network, images)
