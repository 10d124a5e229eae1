"""Exported files, computed by ONNX Runtime, against the networks they were made from."""

import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from quantized_networks import (
    FAST,
    calibrated,
    exported,
    photos,
    quantized_network,
    run_file,
    run_in_another_order,
    run_network,
)
from small_networks import conv, depthwise, head, random_images, random_network, randomize

from yolo_dist.bundle import Bundle
from yolo_dist.compress.quantization.layers import QuantizedConvolution
from yolo_dist.darknet.cfg import Avgpool, Dropout, Layer, Maxpool, Route, Shortcut, SqueezeExcite, Upsample
from yolo_dist.darknet.heads import decode_heads
from yolo_dist.darknet.network import Network
from yolo_dist.darknet.zoo import ZOO, zoo_cfg
from yolo_dist.errors import NotExportable
from yolo_dist.evaluate.nms import non_maximum_suppression
from yolo_dist.export.onnx import ExportConfig, export_onnx

LAYERS: dict[str, tuple[Layer, ...]] = {
    **{
        f"convolution, {activation}": (conv(8, 3, activation=activation),)
        for activation in ("linear", "leaky", "relu", "relu6", "h_swish", "mish", "swish", "logistic")
    },
    "convolution, strided, without padding": (conv(8, 3, 2, pad=0, padding=0),),
    "convolution, dilated": (conv(8, 3, dilation=2),),
    "convolution, grouped": (conv(8, 3), conv(12, 3, groups=4)),
    "convolution, biased": (conv(8, 3, batch_normalize=0),),
    "depthwise": (conv(8, 3), depthwise(8, 3, stride=2)),
    "squeeze and excitation": (conv(8, 3), SqueezeExcite(filters=8)),
    "shortcut": (conv(8, 3), conv(8, 3), Shortcut(from_layer=(-2,))),
    "shortcut of three, leaky": (conv(8), conv(8), conv(8), Shortcut(from_layer=(-2, -3), activation="leaky")),
    "route of two": (conv(8, 3), conv(4, 3), Route(layers=(-1, -2))),
    "route, half of one": (conv(8, 3), Route(layers=(-1,), groups=2, group_id=1), conv(4, 3)),
    "route, halves of two": (conv(8, 3), conv(4, 3), Route(layers=(-1, -2), groups=2, group_id=1)),
    "maximum, same size": (conv(8, 3), Maxpool(size=2, stride=1)),
    "maximum, halved": (conv(8, 3), Maxpool(size=2, stride=2)),
    "maximum, wide": (conv(8, 3), Maxpool(size=5, stride=1)),
    "maximum of an odd padding": (conv(8, 3), Maxpool(size=3, stride=2, padding=1)),
    "average": (conv(8, 3), Avgpool()),
    "upsampling": (conv(8, 3, 2), Upsample(stride=2)),
    "dropout": (conv(8, 3), Dropout(probability=0.5)),
}
SEVERAL = (
    conv(8, 3, 2),
    conv(8, 3, activation="relu6"),
    SqueezeExcite(filters=8),
    conv(8, activation="linear"),
    Shortcut(from_layer=(-4,)),
    Maxpool(size=2, stride=1),
    Route(layers=(-1, -4)),
    depthwise(16, 3, activation="h_swish"),
    Route(layers=(-1,), groups=2, group_id=1),
)
LAYER_TYPES = pytest.mark.parametrize("layers", LAYERS.values(), ids=LAYERS)
BACKBONES = pytest.mark.parametrize("name", ZOO)


@cache
def backbone(name: str) -> Network:
    """A thin network of the zoo with random numbers, so scaled that maps keep their size through all layers."""
    torch.manual_seed(0)
    network = randomize(Network(zoo_cfg(name, classes=2, image_size=(64, 64), width=0.125)))
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.train().momentum = None
            module.reset_running_stats()
    with torch.no_grad():
        network(random_images(4, (64, 64)))
    return network.eval()


@LAYER_TYPES
def test_a_float_file_gives_what_the_network_gives(layers: tuple[Layer, ...]) -> None:
    network, images = random_network(*layers, *head()), photos()
    (found,) = run_file(exported(network), images)
    np.testing.assert_allclose(found, run_network(network, images)[0], atol=1e-4)


@BACKBONES
def test_a_float_file_of_a_backbone_gives_what_the_network_gives(name: str) -> None:
    network, images = backbone(name), photos(size=(64, 64))
    found = run_file(exported(network, (64, 64)), images)
    for raw, expected in zip(found, run_network(network, images), strict=True):
        np.testing.assert_allclose(raw, expected, atol=1e-4 * max(1, np.abs(expected).max()))


@pytest.mark.parametrize("name", ["yolov3-tiny", "yolov4-tiny", "yolov3tiny-mobilenet-small"])
def test_the_integers_of_a_backbone_agree_with_what_was_simulated(name: str) -> None:
    """Random deep networks make much of a single step, so that the nearest measure is what quantising them changes."""
    network, images = backbone(name), photos(size=(64, 64))
    quantized = calibrated(network, (64, 64), **FAST)
    found = run_file(exported(quantized, (64, 64)), images)
    simulated = run_network(quantized, images)
    for raw, expected, unquantized in zip(found, simulated, run_network(network, images), strict=True):
        assert np.abs(raw - expected).mean() < np.abs(unquantized - expected).mean()


def summing_network() -> Network:
    """Its first convolution adds up what it sees, with the largest of its weights."""
    network = random_network(conv(8, 3, 2), *head())
    with torch.no_grad():
        next(network.parameters()).fill_(0.1)
    return network


def test_sums_of_the_largest_products_are_whole() -> None:
    """255 · 127 twice is more than 16 bits hold, in which processors without VNNI instructions may add products."""
    quantized, white = calibrated(summing_network(), **FAST), np.full((1, 3, 32, 32), 255, np.uint8)
    (found,), (expected,) = run_file(exported(quantized), white), run_network(quantized, white)
    np.testing.assert_allclose(found, expected, atol=1e-4 * np.abs(expected).max())


def test_weights_of_seven_bits_need_no_option_of_the_runtime_for_that() -> None:
    quantized, white = calibrated(summing_network(), weight_bits=7, **FAST), np.full((1, 3, 32, 32), 255, np.uint8)
    session = onnxruntime.InferenceSession(exported(quantized).SerializeToString(), providers=["CPUExecutionProvider"])
    (found,), (expected,) = session.run(None, {"images": white}), run_network(quantized, white)
    np.testing.assert_allclose(found, expected, atol=1e-4 * np.abs(expected).max())


@BACKBONES
def test_a_backbone_with_finer_steps_agrees_closely(name: str) -> None:
    """Or about as closely as it does with itself: what the order of float sums changes grows through 110 layers."""
    network, images = calibrated(backbone(name), (64, 64), activation_bits=15, **FAST), photos(size=(64, 64))
    found, in_another_order = run_file(exported(network, (64, 64)), images), run_in_another_order(network, images)
    for raw, expected, other in zip(found, run_network(network, images), in_another_order, strict=True):
        own = np.abs(other - expected).mean()
        assert np.abs(raw - expected).mean() < max(0.02 * np.abs(expected).mean(), 4 * own)


def test_boxes_are_decoded_as_in_evaluation() -> None:
    network = random_network(conv(8, 3, 2), *head(scale_x_y=1.1), Route(layers=(-3,)), conv(4, 3, 2), *head())
    found, images = exported(network, output="boxes"), photos()
    expected = decode_heads(network.heads, [torch.from_numpy(raw) for raw in run_network(network, images)])
    np.testing.assert_allclose(run_file(found, images)[0], expected.numpy(), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("multi_label", [False, True])
def test_detections_are_what_suppression_leaves_of_the_boxes(multi_label: bool) -> None:
    network, images = random_network(conv(8, 3, 2), *head(classes=3)), photos(3)
    limits: dict[str, Any] = {"confidence": 0.35, "nms_iou": 0.4, "multi_label": multi_label}
    (boxes,) = run_file(exported(network, output="boxes"), images)
    (found,) = run_file(exported(network, output="detections", **limits), images)
    expected = non_maximum_suppression(torch.from_numpy(boxes), 0.35, 0.4, multi_label=multi_label)
    assert 0 < len(found) < boxes.shape[0] * boxes.shape[1]
    for number, detections in enumerate(expected):
        own = found[found[:, 0] == number]
        own = own[np.argsort(-own[:, 5], kind="stable")]
        np.testing.assert_allclose(own[:, 1:5], detections.xyxy, rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(own[:, 5], detections.scores, rtol=1e-4)
        np.testing.assert_array_equal(own[:, 6], detections.labels)


def test_no_detection_is_an_empty_table() -> None:
    network = random_network(conv(8, 3, 2), *head())
    (found,) = run_file(exported(network, output="detections", confidence=0.99), photos())
    assert found.shape == (0, 7)


@pytest.mark.parametrize("config", [None, FAST], ids=["float", "int8"])
def test_a_batch_may_have_any_number_of_images(config: dict[str, Any] | None) -> None:
    network = random_network(conv(8, 3, 2), *head())
    model = exported(network if config is None else calibrated(network, **config))
    images = photos(3)
    together = run_file(model, images)[0]
    apart = [run_file(model, images[number : number + 1])[0][0] for number in range(3)]
    np.testing.assert_allclose(together, apart, atol=1e-5)


def test_a_file_is_a_quarter_as_large_and_its_operators_are_those_of_integers(tmp_path: Path) -> None:
    float_network = random_network(conv(64, 3, 2), conv(128, 3), conv(128, 3), *head())
    whole, model = exported(float_network), exported(calibrated(float_network, **FAST))
    assert model.ByteSize() < 0.28 * whole.ByteSize()
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    operators = [node.op_type for node in onnx.load(tmp_path / "optimised.onnx").graph.node]
    assert operators.count("QLinearConv") == 3
    assert operators.count("Conv") == 1  # the head's, whose accumulators are not rounded


def test_a_file_says_what_it_was_made_from(tmp_path: Path) -> None:
    bundle = Bundle(random_network(conv(8), *head(classes=2)), ("dog", "kočka"), (64, 32)).save(tmp_path / "bundle")
    model = export_onnx(bundle, ExportConfig(opset=17))
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    assert json.loads(metadata["classes"]) == ["dog", "kočka"]
    assert json.loads(metadata["image_size"]) == [64, 32]
    assert metadata["fingerprint"] == bundle.fingerprint
    assert [entry.version for entry in model.opset_import] == [17]
    sides = [axis.dim_value or axis.dim_param for axis in model.graph.input[0].type.tensor_type.shape.dim]
    assert sides == ["batch", 3, 32, 64]


@pytest.mark.parametrize("config", [None, FAST], ids=["float", "int8"])
@pytest.mark.parametrize("opset", [13, 17, 24])
def test_older_and_newer_opsets_compute_the_same(opset: int, config: dict[str, Any] | None) -> None:
    network, images = random_network(conv(8, 3, 2), *head()), photos()
    model = network if config is None else calibrated(network, **config)
    (usual,), (other,) = (run_file(exported(model, opset=number), images) for number in (21, opset))
    np.testing.assert_allclose(other, usual, atol=1e-5)


def test_a_float_network_has_no_integers() -> None:
    with pytest.raises(NotExportable, match="not quantised; quantise it first, or take format onnx"):
        exported(random_network(conv(8), *head()), format="onnx-int8")


def test_a_quantised_network_has_no_float_file() -> None:
    with pytest.raises(NotExportable, match="take format onnx-int8"):
        exported(quantized_network(conv(8), *head()), format="onnx")


def test_an_opset_that_is_too_old_for_a_layer_is_named_with_it() -> None:
    network = random_network(conv(8), conv(8, activation="h_swish"), *head())
    with pytest.raises(NotExportable, match="layer 1: activation h_swish needs opset 14"):
        exported(network, opset=13)
    assert exported(network, opset=14)


@pytest.mark.parametrize(
    ("config", "problem"),
    [
        ({"activation_bits": 9}, "layer 0: an activation of more than 8 bits needs opset 21 of ONNX, not 20"),
        ({"weight_bits": 9}, "layer 0: a weight of more than 8 bits"),
        ({"scheme": "dorefa"}, "layer 0: a weight of more than 8 bits .at scheme dorefa more than 7. needs opset 21"),
    ],
)
def test_more_bits_than_an_opset_has_are_refused(config: dict[str, Any], problem: str) -> None:
    network = quantized_network(conv(8, activation="relu"), *head(), **config)
    with pytest.raises(NotExportable, match=problem):
        exported(network, opset=20)


def test_a_second_reader_of_a_heads_map_is_refused_by_its_layer() -> None:
    layers = (conv(8), *head(), Route(layers=(-2,)), conv(8), *head())
    assert exported(random_network(*layers))
    with pytest.raises(NotExportable, match="layer 4: reads a layer that feeds a head, whose numbers lie on no grid"):
        exported(quantized_network(*layers, **FAST))


def test_weights_that_no_integer_of_onnx_holds_are_refused() -> None:
    network = quantized_network(conv(8), *head(), scheme="dorefa", weight_bits=16)
    with pytest.raises(NotExportable, match="layer 0: its weights have more than 16 bits"):
        exported(network)


def test_a_filter_of_dead_gamma_gives_its_bias() -> None:
    float_network = random_network(conv(8, 3), *head())
    norm = float_network.layers[0].norm
    assert isinstance(norm, torch.nn.BatchNorm2d)
    with torch.no_grad():
        norm.weight[:4] = torch.tensor([0.0, 1e-12, -1e-9, 1e-6])
    for config in ({}, FAST):
        network, images = calibrated(float_network, **config), photos()
        for optimised in (False, True):
            (found,) = run_file(exported(network), images, optimised)
            assert share_equal(found, run_network(network, images)[0]) > 0.95


@pytest.mark.parametrize(
    "config",
    [
        pytest.param({}, id="default"),
        pytest.param(FAST, id="fast"),
        pytest.param({"power_of_two": True, "fold_batchnorm": True}, id="shifts"),
        pytest.param({"power_of_two": True}, id="shifts, not folded"),
        pytest.param({"symmetric": False}, id="asymmetric"),
        pytest.param({"symmetric": False, "per_channel": True}, id="asymmetric filters"),
        pytest.param({"scheme": "dorefa"}, id="dorefa"),
        pytest.param({"scheme": "dorefa", "weight_bits": 4}, id="dorefa, 4 bits"),
        pytest.param({"weight_bits": 4, "activation_bits": 4}, id="4 bits"),
        pytest.param({"weight_bits": 12, "activation_bits": 12}, id="12 bits"),
        pytest.param({"first_bits": "float", "last_bits": "float", "bias_bits": 8}, id="ends float"),
    ],
)
def test_a_file_as_it_stands_gives_what_was_simulated(config: dict[str, Any]) -> None:
    network, images = quantized_network(*SEVERAL, *head(), **config), photos()
    (found,) = run_file(exported(network), images, optimised=False)
    expected = run_network(network, images)[0]
    assert share_equal(found, expected) > 0.9
    np.testing.assert_allclose(found, expected, atol=3 * coarsest_step(network))


def share_equal(found: np.ndarray[Any, Any], expected: np.ndarray[Any, Any]) -> float:
    return float(np.isclose(found, expected, rtol=1e-4, atol=1e-4).mean())


def coarsest_step(network: Network) -> float:
    """What one step of the head's input is worth in its output, at most."""
    feeder = network.layers[-2]
    assert isinstance(feeder, QuantizedConvolution)
    step = max(float(grid.grid().scale) for _, grid in network.quantizers())  # type: ignore[operator]
    return step * float(feeder.weight().detach().abs().max())


@LAYER_TYPES
@pytest.mark.parametrize("config", [{}, FAST], ids=["default", "fast"])
def test_the_integers_of_the_runtime_agree_with_what_was_simulated(
    layers: tuple[Layer, ...], config: dict[str, Any]
) -> None:
    network, images = quantized_network(*layers, *head(), seed=1, **config), photos()
    (found,) = run_file(exported(network), images)
    expected = run_network(network, images)[0]
    assert share_equal(found, expected) > 0.9
    np.testing.assert_allclose(found, expected, atol=3 * coarsest_step(network))
