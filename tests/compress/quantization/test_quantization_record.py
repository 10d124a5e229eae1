"""Quantised bundles: saved and opened, they give the same bits; damaged ones are named."""

import json
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from calibrated import calibrated
from safetensors.torch import load_file, save_file
from small_networks import conv, head, random_images, random_network
from torch import Tensor
from upath import UPath

from yolo_dist.bundle import Bundle, open_bundle
from yolo_dist.compress.quantization import (
    QuantizationConfig,
    QuantizeConfig,
    QuantizedNetwork,
    calibrate,
    quantize,
)
from yolo_dist.compress.quantization.record import load_quantization, save_quantization
from yolo_dist.darknet.network import Network
from yolo_dist.errors import BundleCorrupt, NotCalibrated, QuantizationError
from yolo_dist.storage import sha256

IMAGES = random_images(2, (64, 64))
FILE = "quantization.safetensors"


def raws(network: Network) -> list[Tensor]:
    with torch.no_grad():
        outputs: list[Tensor] = network.eval()(IMAGES)
    return outputs


def saved(folder: Path, **options: Any) -> Bundle:
    start = tiny.make_bundle()
    return start.followed_by(calibrated(start.network, IMAGES, **options)).save(folder)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"symmetric": "weights", "per_channel": True, "fold_batchnorm": True},
        {"scheme": "dorefa", "weight_bits": 3, "activation_bits": 5, "last_bits": 8},
        {"power_of_two": True, "bias_bits": 8, "first_bits": "float"},
    ],
)
def test_an_opened_bundle_computes_the_same_bits(tmp_path: Path, options: dict[str, Any]) -> None:
    written = saved(tmp_path / "bundle", **options)
    opened = open_bundle(tmp_path / "bundle")
    assert isinstance(opened.network, QuantizedNetwork)
    assert opened.network.config == QuantizationConfig(**options)
    for own, expected in zip(raws(opened.network), raws(written.network), strict=True):
        assert torch.equal(own, expected)


def test_how_a_network_was_quantised_is_no_part_of_the_record(tmp_path: Path) -> None:
    network = quantize(tiny.make_bundle().network, QuantizeConfig(ranges="mse", calibration_images=2))
    calibrate(network, [IMAGES], "mse")
    save_quantization(network, tmp_path / FILE)
    assert load_quantization(tiny.make_bundle().network, tmp_path / FILE, FILE).config == QuantizationConfig()


def test_without_ranges_nothing_is_written(tmp_path: Path) -> None:
    network = quantize(tiny.make_bundle().network, QuantizationConfig())
    with pytest.raises(NotCalibrated, match="has no ranges yet"):
        Bundle(network, ("circle", "square", "triangle"), tiny.SIZE).save(tmp_path / "bundle")
    assert not (tmp_path / "bundle").exists()


def test_a_record_of_another_cfg_is_refused_by_the_layer_in_which_they_differ(tmp_path: Path) -> None:
    save_quantization(calibrated(random_network(conv(4), *head())), tmp_path / FILE)
    other = random_network(conv(4), conv(4), *head())
    with pytest.raises(QuantizationError, match=r"^here: belongs to another cfg: layers\.1\.before is only in one"):
        load_quantization(other, tmp_path / FILE, "here")


def test_a_scale_that_is_not_that_of_its_range_is_refused(tmp_path: Path) -> None:
    network = calibrated(tiny.make_bundle().network, IMAGES)
    save_quantization(network, tmp_path / FILE)
    ranges = load_file(tmp_path / FILE)
    ranges["layers.0.output"][2] *= 2
    save_file(ranges, tmp_path / FILE, metadata={"quantization": network.config.model_dump_json()})
    with pytest.raises(QuantizationError, match=r"^here: the scale of layers\.0\.output does not follow"):
        load_quantization(tiny.make_bundle().network, tmp_path / FILE, "here")


@pytest.mark.parametrize("content", [b"", b"no such format", bytes(200)])
def test_a_file_that_is_no_record_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / FILE).write_bytes(content)
    with pytest.raises(QuantizationError, match=r"^here: no record of a quantised network \("):
        load_quantization(tiny.make_bundle().network, tmp_path / FILE, "here")


def test_a_bundle_without_its_record_or_with_a_damaged_one_is_refused(tmp_path: Path) -> None:
    saved(tmp_path / "bundle")
    record = tmp_path / "bundle" / FILE
    content = record.read_bytes()
    record.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(BundleCorrupt, match=f"{FILE} does not match bundle.json"):
        open_bundle(tmp_path / "bundle")
    record.unlink()
    with pytest.raises(BundleCorrupt, match=f"{FILE} is missing; copy the whole bundle again"):
        open_bundle(tmp_path / "bundle")


def test_a_bundle_whose_record_is_of_another_network_is_refused(tmp_path: Path) -> None:
    saved(tmp_path / "bundle")
    save_quantization(calibrated(random_network(conv(4), *head())), tmp_path / "bundle" / FILE)
    record = tmp_path / "bundle" / "bundle.json"
    values = json.loads(record.read_text())
    values["sha256"][FILE] = sha256(UPath(tmp_path / "bundle" / FILE))
    record.write_text(json.dumps(values))
    with pytest.raises(BundleCorrupt, match=rf"bundle/{FILE}: belongs to another cfg: .*; copy the whole bundle again"):
        open_bundle(tmp_path / "bundle")
