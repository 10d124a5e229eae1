"""One-channel networks: what they see of a colour image, and that everything from training to export works on it."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import torch
from PIL import Image
from tiny_runs import prepare, recipe, stage_file

from yolo_dist.bundle import open_bundle
from yolo_dist.compress.quantization import QuantizationConfig, QuantizedNetwork, calibrate, quantize
from yolo_dist.compress.quantization.integer import integer_network
from yolo_dist.config import validate
from yolo_dist.darknet.cfg import parse_cfg
from yolo_dist.darknet.channels import in_channels
from yolo_dist.darknet.network import Network, initialize
from yolo_dist.errors import ConfigError, ModelError
from yolo_dist.evaluate.detect import DetectConfig, detect
from yolo_dist.model import ModelSource
from yolo_dist.pipeline import run

SOME = torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def one_channel() -> Network:
    network = Network(parse_cfg(tiny.CFG.replace("channels=3", "channels=1")))
    initialize(network, 0)
    return network.eval()


def test_brightness_is_what_pillow_makes_of_colours() -> None:
    for image, grey in zip(SOME, in_channels(SOME, 1), strict=True):
        expected = np.asarray(Image.fromarray(image.permute(1, 2, 0).numpy()).convert("L"), np.int16)
        assert np.abs(grey[0].numpy().astype(np.int16) - expected).max() <= 1  # Pillow computes in 16 bits


def test_floats_are_what_bytes_are_and_grey_images_stay() -> None:
    assert torch.equal(in_channels(SOME.float() / 255, 1), in_channels(SOME, 1).float() / 255)
    grey = SOME[:, :1].expand(-1, 3, -1, -1)
    assert torch.equal(in_channels(grey, 1), SOME[:, :1])
    assert in_channels(SOME, 3) is SOME
    assert in_channels(SOME[:, :1], 1).shape[1] == 1


def test_a_network_of_one_channel_takes_colour_images_and_grey_ones() -> None:
    network = one_channel()
    with torch.no_grad():
        of_colour, of_grey = network(SOME.float() / 255), network(in_channels(SOME, 1).float() / 255)
    assert all(torch.equal(one, other) for one, other in zip(of_colour, of_grey, strict=True))


@pytest.mark.parametrize("power_of_two", [False, True])
def test_quantised_and_integer_networks_see_the_same_brightness(power_of_two: bool) -> None:
    network = quantize(one_channel(), QuantizationConfig(power_of_two=power_of_two))
    calibrate(network, [SOME.float() / 255], "minmax")
    network.eval()
    colour, grey = SOME.float() / 255, in_channels(SOME, 1).float() / 255
    with torch.no_grad():
        assert torch.equal(network(colour)[0], network(grey)[0])
        integers = integer_network(network)
        assert torch.equal(integers(colour)[0], integers(grey)[0])


def test_channels_that_images_have_not_are_refused() -> None:
    network = Network(parse_cfg(tiny.CFG.replace("channels=3", "channels=4")))
    with pytest.raises(ModelError, match=r"\[net\] has channels=4, and images have 3; take a network of 3"):
        network(SOME.float())
    with pytest.raises(ConfigError, match="channels is for networks of the zoo only"):
        validate(ModelSource, {"cfg": "a.cfg", "channels": 1}, "model")
    with pytest.raises(ConfigError, match="channels"):
        validate(ModelSource, {"zoo": "yolov4", "channels": 2}, "model")


def test_a_zoo_network_of_one_channel_is_trained_pruned_quantised_exported_and_detects(tmp_path: Path) -> None:
    folder = prepare(tmp_path)
    stages: list[dict[str, Any]] = [
        {"id": "base", "kind": "train", "epochs": 1},
        {"id": "pruned", "kind": "prune", "percent": 0.3, "force": True},
        {"id": "file", "kind": "export"},
        {"id": "int8", "kind": "train", "epochs": 1, "from": "pruned", "quantization": {"calibration_images": 4}},
        {"id": "int8-file", "kind": "export", "format": "onnx-int8"},
    ]
    model = {"zoo": "yolov3-tiny", "width": 0.05, "channels": 1}
    results = {result.id: result for result in run(recipe(folder, model=model, stages=stages))}
    assert results["file"].map == pytest.approx(results["pruned"].map, abs=1e-3)
    assert results["int8-file"].map == pytest.approx(results["int8"].map, abs=0.02)
    bundle = open_bundle(stage_file(folder, "base", ""))
    assert bundle.network.cfg.net.channels == 1
    assert isinstance(open_bundle(stage_file(folder, "int8", "")).network, QuantizedNetwork)

    colour, grey = tmp_path / "colour.png", tmp_path / "grey.png"
    Image.fromarray(SOME[0].permute(1, 2, 0).numpy()).save(colour)
    Image.fromarray(in_channels(SOME, 1)[0, 0].numpy()).save(grey)
    config = DetectConfig(confidence=0.0, max_detections=5)
    found = [
        json.loads(detect(bundle.network, bundle.classes, [file], tmp_path / file.stem, config).json_file.read_text())
        for file in (colour, grey)
    ]
    assert found[0][0]["boxes"] == found[1][0]["boxes"] != []
