"""Whole networks, quantised: as good as the float ones when bits are many, and never changed by being used."""

from math import ceil
from statistics import linear_regression, mean
from typing import Any

import pytest
import torch
from calibrated import bytes_of, calibrated, signal_to_noise
from small_networks import conv, depthwise, head, random_images, random_network
from torch import Tensor

from yolo_dist.compress.pruning.reestimation import reestimate_batchnorm
from yolo_dist.compress.quantization import QuantizationConfig, as_float, quantize
from yolo_dist.compress.quantization.layers import QuantizedConvolution
from yolo_dist.darknet.cfg import Avgpool, Layer, Maxpool, Route, Shortcut, SqueezeExcite, Upsample
from yolo_dist.darknet.network import Network, initialize
from yolo_dist.darknet.zoo import ZOO, zoo_cfg
from yolo_dist.errors import AlreadyQuantized, NotCalibrated

EVERY_KIND: tuple[Layer, ...] = (
    conv(8, 3, activation="relu6"),
    conv(8, 3, 2, activation="h_swish"),
    depthwise(8, 3, activation="mish"),
    SqueezeExcite(filters=8),
    Shortcut(from_layer=-3, activation="leaky"),
    Maxpool(size=2, stride=2),
    conv(6, 3, groups=2, activation="relu"),
    Upsample(stride=2),
    Route(layers=(-1, -4)),
    conv(5),
    *head(),
    Route(layers=-8),
    Avgpool(),
    conv(6),
    *head(),
)


def network(seed: int = 0) -> Network:
    return random_network(*EVERY_KIND, seed=seed)


def raws(one: Network, images: Tensor) -> list[Tensor]:
    with torch.no_grad():
        outputs: list[Tensor] = one(images)
    return outputs


def test_parameters_keep_their_names_and_numbers_and_are_not_shared() -> None:
    plain = network()
    quantized = quantize(plain, QuantizationConfig())
    assert [name for name, _ in quantized.named_parameters()] == [name for name, _ in plain.named_parameters()]
    state = quantized.state_dict()
    assert all(torch.equal(state[name], value) for name, value in plain.state_dict().items())
    for parameter in quantized.parameters():
        parameter.data.zero_()
    assert all(torch.equal(one, other) for one, other in zip(plain.parameters(), network().parameters(), strict=True))


@pytest.mark.parametrize("options", [{}, {"per_channel": True}, {"fold_batchnorm": True}, {"bias_bits": 16}])
def test_stored_bytes_are_those_of_what_is_deployed(options: dict[str, Any]) -> None:
    layers = conv(8, 3), depthwise(8, 3), conv(5, batch_normalize=0), *head()
    quantized = quantize(random_network(*layers), QuantizationConfig(weight_bits=4, last_bits=6, **options))
    expected = 0
    for layer in quantized.layers:
        if isinstance(layer, QuantizedConvolution):
            assert layer.weight_bits is not None
            deployed = layer.deployed()
            bits = deployed.steps.numel() * layer.weight_bits + deployed.bias.numel() * options.get("bias_bits", 32)
            expected += ceil((bits + 32 * len(deployed.scale.unique())) / 8)
    assert quantized.stored_bytes == expected


def test_stored_bytes_of_float_layers_and_of_squeeze_and_excitation() -> None:
    layers = conv(4), SqueezeExcite(filters=4), conv(5, batch_normalize=0), *head()
    kept = quantize(random_network(*layers), QuantizationConfig(first_bits="float", last_bits="float"))
    first, excitation, third, last = 4 * (3 * 4 + 4), 4 + 4 + 4 * 2, 5 * 4 + 4 * 5 + 4, 4 * (12 * 5 + 12)
    assert kept.stored_bytes == first + excitation + third + last


def test_the_float_network_comes_back_as_it_was() -> None:
    again = as_float(calibrated(network(), weight_bits=3))
    assert type(again) is Network
    for own, expected in zip(raws(again, random_images()), raws(network(), random_images()), strict=True):
        assert torch.equal(own, expected)


@pytest.mark.parametrize("training", [False, True])
def test_quantising_keeps_the_mode(training: bool) -> None:
    assert quantize(network().train(training), QuantizationConfig()).training is training


def test_every_kind_of_layer_leaves_numbers_on_its_grid() -> None:
    quantized = calibrated(network(), activation_bits=4)
    quantizers = dict(quantized.quantizers())
    with torch.no_grad():
        _, features = quantized.forward_features(random_images(), range(len(EVERY_KIND)))
    outputs = {index: quantizers.get(f"layers.{index}.output") for index in features}
    passing = {5: 4, 7: 6, 12: 4}
    """Layers that only pass numbers on, and where those come from."""
    for index, values in features.items():
        quantizer = outputs[passing.get(index, index)]
        if quantizer is not None:
            assert torch.equal(quantizer.grid().snap(values), values), index
    without = [index for index, quantizer in outputs.items() if quantizer is None]
    assert without == [5, 7, 10, 11, 12, 15, 16], "those that pass numbers on, and heads with the layers that feed them"


def test_the_image_is_put_on_the_grid_of_its_bytes() -> None:
    quantized, images = calibrated(network(), activation_bits=4), random_images()
    assert not torch.equal(images, bytes_of(images))
    for own, expected in zip(raws(quantized, images), raws(quantized, bytes_of(images)), strict=True):
        assert torch.equal(own, expected)


@pytest.mark.parametrize(
    ("options", "bits"),
    [
        ({}, [4, 4, 4, 4]),
        ({"first_bits": 8}, [8, 4, 4, 4]),
        ({"last_bits": 8}, [4, 4, 8, 8]),
        ({"first_bits": "float", "last_bits": "float"}, [None, 4, None, None]),
    ],
)
def test_first_and_last_layers_may_have_bits_of_their_own(options: dict[str, Any], bits: list[int | None]) -> None:
    plain = random_network(conv(40, 3), conv(40), *head(), Route(layers=-3), *head())
    quantized = calibrated(plain, weight_bits=4, **options)
    layers = [layer for layer in quantized.layers if isinstance(layer, QuantizedConvolution)]
    assert [layer.weight_bits for layer in layers] == bits
    for layer, expected in zip(layers, bits, strict=True):
        weight = layer.weight().detach()
        if expected is None:
            assert torch.equal(weight, layer.conv.weight)
        else:
            assert weight.unique().numel() <= 2**expected
            assert weight.unique().numel() > 16 or expected == 4


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"symmetric": False},
        {"symmetric": "weights", "per_channel": True, "fold_batchnorm": True},
        {"scheme": "dorefa"},
        {"power_of_two": True, "bias_bits": 8, "first_bits": 8, "last_bits": "float"},
    ],
)
def test_using_a_network_changes_nothing_of_it(options: dict[str, Any]) -> None:
    quantized = calibrated(network(), **options)
    before = {name: value.clone() for name, value in quantized.state_dict().items()}
    first = raws(quantized, random_images())
    raws(quantized, 3 * random_images(seed=5))
    after = quantized.state_dict()
    assert sorted(before) == sorted(after)
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert all(torch.equal(a, b) for a, b in zip(first, raws(quantized, random_images()), strict=True))


def test_a_state_holds_the_ranges() -> None:
    trained = calibrated(network())
    fresh = quantize(network(seed=1), QuantizationConfig()).eval()
    fresh.load_state_dict(trained.state_dict())
    for own, expected in zip(raws(fresh, random_images()), raws(trained, random_images()), strict=True):
        assert torch.equal(own, expected)


def test_without_ranges_it_does_not_run() -> None:
    with pytest.raises(NotCalibrated, match="calibrate it on images"):
        raws(quantize(network(), QuantizationConfig()), random_images())


def test_nothing_is_quantised_twice() -> None:
    with pytest.raises(AlreadyQuantized, match="take the float bundle it was made from"):
        quantize(calibrated(network()), QuantizationConfig(weight_bits=4))


def trained_like(name: str) -> Network:
    """A backbone whose activations are as large as those of a trained one."""
    torch.manual_seed(0)
    backbone = Network(zoo_cfg(name, classes=2, image_size=(64, 64), width=0.125))
    initialize(backbone, 0)
    reestimate_batchnorm(backbone, [random_images(size=(64, 64))])
    return backbone.eval()


@pytest.mark.parametrize("name", ZOO)
def test_outputs_of_every_backbone_approach_the_float_ones_by_6_db_a_bit(name: str) -> None:
    """By one number of bits it may be some decibels more or less: deep networks make much of single roundings."""
    plain, images = trained_like(name), bytes_of(random_images(8, (64, 64), seed=1))
    bits, noise = range(12, 17), list[float]()
    for number in bits:
        quantized = calibrated(plain, images, weight_bits=number, activation_bits=number, symmetric="weights")
        heads = zip(raws(plain, images), raws(quantized, images), strict=True)
        noise.append(mean(signal_to_noise(*pair) for pair in heads))
    assert noise[-1] > 45
    assert linear_regression(bits, noise).slope == pytest.approx(6.02, abs=1)
