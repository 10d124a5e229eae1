"""Integers compute what the quantised network simulates."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from every_layer import every_layer, quantized
from PIL import Image
from small_networks import conv, head, random_images, random_network, randomize

from yolo_dist.compress.quantization import QuantizationConfig, QuantizedNetwork, calibrate, quantize
from yolo_dist.compress.quantization.integer import compare, integer_network
from yolo_dist.compress.quantization.integer.operations import IntegerConvolution
from yolo_dist.darknet.cfg import Layer, Route, Shortcut
from yolo_dist.darknet.layers import Convolution
from yolo_dist.darknet.network import Network
from yolo_dist.darknet.zoo import ZOO, zoo_cfg
from yolo_dist.errors import NotCalibrated, NotExportable

CONFIGS: list[dict[str, Any]] = [
    {},
    {"fold_batchnorm": True},
    {"fold_batchnorm": True, "power_of_two": True},
    {"power_of_two": True, "bias_bits": 8},
    {"symmetric": False, "per_channel": True},
    {"symmetric": "weights", "per_channel": True, "fold_batchnorm": True},
    {"scheme": "dorefa"},
    {"scheme": "dorefa", "per_channel": True, "fold_batchnorm": True, "power_of_two": True},
    {"weight_bits": 2, "activation_bits": 2},
    {"weight_bits": 4, "activation_bits": 6, "symmetric": False, "first_bits": 8, "last_bits": 8},
    {"weight_bits": 16, "activation_bits": 16},
]


def calibrated(network: Network, **config: Any) -> QuantizedNetwork:
    quantized = quantize(network, QuantizationConfig(**config))
    calibrate(quantized, [random_images(2, network.cfg.size)], "minmax")
    return quantized.eval()


@pytest.mark.parametrize("config", CONFIGS, ids=str)
def test_every_layer_is_equal_to_one_unit(config: dict[str, Any]) -> None:
    network = quantized(**config)
    comparison = compare(integer_network(network), network, random_images(2, seed=1))
    assert {layer.name: layer.largest for layer in comparison.layers if layer.largest > 1} == {}
    assert min(layer.equal for layer in comparison.layers) > 0.9


@pytest.mark.parametrize("name", ZOO)
def test_every_backbone_is_equal_to_one_unit(name: str) -> None:
    torch.manual_seed(0)
    cfg = zoo_cfg(name, classes=3, width=0.25, image_size=(64, 64))
    network = calibrated(randomize(Network(cfg)), fold_batchnorm=True, power_of_two=True)
    integers = integer_network(network)
    assert integers.shifts_only
    comparison = compare(integers, network, random_images(1, cfg.size, seed=1))
    assert {layer.name: layer.largest for layer in comparison.layers if layer.largest > 1} == {}


@pytest.fixture(scope="module")
def photographs(shared_data: Path) -> torch.Tensor:
    """Two real images as the network sees them, float [2, 3, 64, 64]."""
    paths = sorted((shared_data / "bccd" / "JPEGImages").glob("*.jpg"))[:2]
    small = [np.asarray(Image.open(path).convert("RGB").resize((64, 64))) for path in paths]
    return torch.from_numpy(np.stack(small)).permute(0, 3, 1, 2).float().div(255)


@pytest.mark.parametrize("config", [{}, {"fold_batchnorm": True, "power_of_two": True}], ids=str)
@pytest.mark.parametrize("name", ZOO)
def test_on_real_images_every_backbone_is_equal_to_one_unit(
    name: str, config: dict[str, Any], photographs: torch.Tensor
) -> None:
    torch.manual_seed(0)
    network = quantize(
        randomize(Network(zoo_cfg(name, classes=3, width=0.25, image_size=(64, 64)))), QuantizationConfig(**config)
    )
    calibrate(network, [photographs], "minmax")
    network.eval()
    comparison = compare(integer_network(network), network, photographs[:1])
    assert {layer.name: layer.largest for layer in comparison.layers if layer.largest > 1} == {}


def test_heads_of_integers_are_those_of_the_network() -> None:
    network = quantized(weight_bits=16, activation_bits=16)
    images = random_images(2, seed=1)
    for ours, theirs in zip(integer_network(network)(images), network(images), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=0.01)


def test_with_powers_of_two_only_rounded_biases_differ() -> None:
    plain: dict[str, Any] = {"batch_normalize": 0}
    network = random_network(
        *(conv(8, 3, **plain), conv(8, 3, activation="mish", **plain), Shortcut(from_layer=(-2,)), *head())
    )
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if name.endswith("bias"):
                parameter.copy_((parameter * 16).round() / 16)  # as a whole number of accumulators' units
    exact = calibrated(network, power_of_two=True, fold_batchnorm=True)
    comparison = compare(integer_network(exact), exact, random_images(4, seed=1))
    assert {layer.equal for layer in comparison.layers} == {1.0}
    assert comparison.raw == 0


def test_nothing_but_integers_is_computed_with() -> None:
    integers = integer_network(quantized())
    image = integers.image.steps(random_images(1))
    outputs = {-1: image}
    for place, operation in enumerate(integers.operations):
        outputs[place] = operation(*[outputs[source] for source in operation.sources])
        assert outputs[place].dtype == torch.int64
        assert tuple(outputs[place].shape[1:]) == operation.shape, operation.name
    assert all(accumulators.dtype == torch.int64 for accumulators in integers.run(image))


def test_a_larger_image_than_the_cfg_says_works_too() -> None:
    network = quantized()
    comparison = compare(integer_network(network), network, random_images(1, (96, 64)))
    assert max(layer.largest for layer in comparison.layers) <= 1


@pytest.mark.parametrize(
    ("config", "shifts_only"), [(config, i in (2, 7)) for i, config in enumerate(CONFIGS)], ids=str
)
def test_shifts_are_enough_with_powers_of_two_and_folded_batch_norm(config: dict[str, Any], shifts_only: bool) -> None:
    assert integer_network(quantized(**config)).shifts_only == shifts_only


@pytest.mark.parametrize("gamma", [0.0, 1e-30, -1e-12, 1e-6, -1e-3])
@pytest.mark.parametrize("fold", [False, True])
def test_a_filter_with_a_dead_gamma_gives_its_bias(gamma: float, fold: bool) -> None:
    network = random_network(conv(4, 3, activation="relu"), conv(4, 3, activation="relu"), *head())
    second = network.layers[1]
    assert isinstance(second, Convolution)
    assert second.norm is not None
    with torch.no_grad():
        second.norm.weight[2] = gamma
        second.norm.bias[2] = 1.25
    quantized_network = calibrated(network, fold_batchnorm=fold)
    integers = integer_network(quantized_network)
    comparison = compare(integers, quantized_network, random_images(1, seed=1))
    assert max(layer.largest for layer in comparison.layers) <= 1
    convolution = integers.operations[1]
    assert isinstance(convolution, IntegerConvolution)
    assert int(convolution.bias.abs().max()) < 2**31
    assert convolution.grid is not None
    expected = convolution.grid.steps(torch.tensor(1.25)).item()
    outputs = convolution(integers.operations[0](integers.image.steps(random_images(1))))[0, 2]
    assert (outputs - expected).abs().max() <= (1 if abs(gamma) < 1e-3 else 3)


def test_a_comparison_sees_one_wrong_weight() -> None:
    network = quantized()
    integers = integer_network(network)
    first = integers.operations[0]
    assert isinstance(first, IntegerConvolution)
    first.weight[3, 0, 1, 1] += 40
    layers = {layer.name: layer for layer in compare(integers, network, random_images(1)).layers}
    assert layers["layers.0.before"].largest > 1
    assert layers["layers.0.before"].equal < 0.95
    assert layers["layers.1.before"].largest <= 1


def test_integers_of_a_network_without_ranges_are_refused() -> None:
    with pytest.raises(NotCalibrated, match="calibrate it"):
        integer_network(quantize(randomize(Network(every_layer())), QuantizationConfig()))


@pytest.mark.parametrize(
    ("layers", "config", "message"),
    [
        ([conv(4), *head()], {"first_bits": "float"}, r"layer 0 \[convolutional\]: keeps float weights.*first_bits"),
        ([conv(4), *head()], {"last_bits": "float"}, r"layer 1 \[convolutional\]: keeps float weights.*last_bits"),
        ([conv(12), head()[1]], {}, r"layer 0 \[convolutional\]: feeds a head through an activation"),
        ([conv(4), *head(), Route(layers=(1,))], {}, r"layer 3 \[route\]: reads a layer that feeds a head"),
    ],
)
def test_what_has_no_integers_is_refused(layers: list[Layer], config: dict[str, Any], message: str) -> None:
    with pytest.raises(NotExportable, match=message):
        integer_network(calibrated(random_network(*layers), **config))
