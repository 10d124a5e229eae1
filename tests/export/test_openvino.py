"""Exported files in another runtime than the one they are measured in: OpenVINO computes what the network does."""

import numpy as np
import openvino
import pytest
import torch
from numpy.typing import NDArray
from onnx import ModelProto
from quantized_networks import FAST, calibrated, exported, photos, run_network
from small_networks import randomize

from yolo_dist.darknet.network import Network
from yolo_dist.darknet.zoo import ZOO, zoo_cfg

SIZE = (64, 64)


def run_in_openvino(model: ModelProto, images: NDArray[np.uint8]) -> list[NDArray[np.float32]]:
    """What OpenVINO computes with a file, its float parts in float32."""
    core = openvino.Core()
    read = core.read_model(model.SerializeToString())
    compiled = core.compile_model(read, "CPU", {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1})
    found = compiled(images)
    return [found[output] for output in compiled.outputs]


def backbone(name: str) -> Network:
    torch.manual_seed(0)
    return randomize(Network(zoo_cfg(name, classes=3, width=0.25, image_size=SIZE)))


@pytest.mark.parametrize("name", ZOO)
def test_a_float_file_gives_the_outputs_of_its_network(name: str) -> None:
    network, images = backbone(name), photos(1, SIZE)
    for ours, theirs in zip(
        run_in_openvino(exported(network, SIZE), images), run_network(network, images), strict=True
    ):
        np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-3 * np.abs(theirs).max())


@pytest.mark.parametrize("name", ZOO)
def test_an_integer_file_gives_nearly_the_outputs_that_were_simulated(name: str) -> None:
    """Rounding of halves and the order of float sums differ: single steps here and there."""
    network, images = calibrated(backbone(name), SIZE, **FAST), photos(1, SIZE)
    for ours, theirs in zip(
        run_in_openvino(exported(network, SIZE), images), run_network(network, images), strict=True
    ):
        assert np.abs(ours - theirs).mean() < 0.02 * theirs.std()
