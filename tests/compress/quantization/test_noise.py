"""Noise in each layer, against closed forms and against layers taken out of both networks by hand."""

import json
import math

import pytest
import torch
from calibrated import bytes_of, calibrated, signal_to_noise
from small_networks import conv, head, random_images, random_network

from yolo_dist.compress.quantization import QuantizationConfig, QuantizedNetwork, as_float, quantize
from yolo_dist.compress.quantization.noise import LayerNoise, NoiseReport, measure_noise
from yolo_dist.darknet.cfg import Maxpool, Route, Shortcut
from yolo_dist.errors import NotCalibrated

IMAGES = bytes_of(random_images(6))
LAYERS = (
    conv(8, 3, 2),
    conv(8),
    Shortcut(from_layer=-2),
    Maxpool(size=2, stride=2),
    *head(),
    Route(layers=-3),
    *head(),
)


def network(bits: int = 8) -> QuantizedNetwork:
    return calibrated(random_network(*LAYERS), IMAGES, weight_bits=bits, activation_bits=bits, symmetric="weights")


def test_each_layer_is_compared_with_the_same_of_the_float_network() -> None:
    quantized = network()
    report = measure_noise(quantized, IMAGES.split(4))
    every = range(len(LAYERS))
    with torch.no_grad():
        _, plain = as_float(quantized).forward_features(IMAGES, every)
        _, noisy = quantized.forward_features(IMAGES, every)
    assert [one.layer for one in report.layers] == list(every)
    assert [one.kind for one in report.layers][2:6] == ["shortcut", "maxpool", "convolutional", "yolo"]
    for one in report.layers:
        assert one.signal == pytest.approx(float(plain[one.layer].square().mean()), rel=1e-5)
        assert one.decibels == pytest.approx(signal_to_noise(plain[one.layer], noisy[one.layer]), abs=1e-3)
    assert report.images == 6


def test_the_heads_are_the_outputs_of_the_network() -> None:
    quantized = network()
    with torch.no_grad():
        pairs = zip(as_float(quantized)(IMAGES), quantized(IMAGES), strict=True)
        expected = [signal_to_noise(*pair) for pair in pairs]
    assert [one.decibels for one in measure_noise(quantized, [IMAGES]).heads] == pytest.approx(expected, abs=1e-3)


def test_how_images_are_batched_makes_no_difference() -> None:
    quantized = network()
    whole = measure_noise(quantized, [IMAGES])
    for size in (1, 4):
        parts = measure_noise(quantized, IMAGES.split(size))
        assert [one.noise for one in parts.layers] == pytest.approx([one.noise for one in whole.layers], rel=1e-4)


def test_every_layer_gains_about_6_db_a_bit() -> None:
    few, many = measure_noise(network(10), [IMAGES]), measure_noise(network(14), [IMAGES])
    for before, after in zip(few.layers, many.layers, strict=True):
        assert after.decibels - before.decibels == pytest.approx(4 * 6.02, abs=5)


def test_layers_that_stay_float_add_nothing() -> None:
    """The image has the numbers of its bytes already."""
    report = measure_noise(calibrated(random_network(*head()), IMAGES, first_bits="float"), [IMAGES])
    assert min(one.decibels for one in report.layers) > 100


@pytest.mark.parametrize(
    ("signal", "noise", "decibels"),
    [(1.0, 0.01, 20), (2.0, 2.0, 0), (1.0, 0.0, math.inf), (0.0, 0.0, math.inf), (0.0, 1.0, -math.inf)],
)
def test_decibels(signal: float, noise: float, decibels: float) -> None:
    assert LayerNoise(0, "convolutional", signal, noise).decibels == pytest.approx(decibels)


def test_json_has_a_row_a_layer_and_null_for_what_is_infinite() -> None:
    report = NoiseReport(2, (LayerNoise(0, "convolutional", 1.0, 0.1), LayerNoise(1, "yolo", 1.0, 0.0)))
    assert json.loads(json.dumps(report.as_json(), allow_nan=False)) == {
        "images": 2,
        "layers": [
            {"layer": 0, "kind": "convolutional", "signal": 1.0, "noise": 0.1, "snr_db": 10.0},
            {"layer": 1, "kind": "yolo", "signal": 1.0, "noise": 0.0, "snr_db": None},
        ],
    }


def test_measuring_changes_nothing() -> None:
    quantized = network().train()
    quantized.layers[1].eval()
    modes = [module.training for module in quantized.modules()]
    before = {name: value.clone() for name, value in quantized.state_dict().items()}
    measure_noise(quantized, [IMAGES])
    assert [module.training for module in quantized.modules()] == modes
    assert all(torch.equal(quantized.state_dict()[name], value) for name, value in before.items())


def test_images_and_ranges_are_needed() -> None:
    with pytest.raises(NotCalibrated, match="there are none"):
        measure_noise(network(), [])
    with pytest.raises(NotCalibrated, match="no ranges yet"):
        measure_noise(quantize(random_network(*LAYERS), QuantizationConfig()), [IMAGES])
