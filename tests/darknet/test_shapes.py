"""Shapes and costs: equal to torch's, and layers that do not fit are named."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from yolo_dist.darknet.cfg import Cfg, Convolutional, Maxpool, Net, parse_cfg
from yolo_dist.darknet.network import Network
from yolo_dist.darknet.shapes import count_macs, count_parameters, count_weight_floats, infer_shapes
from yolo_dist.darknet.zoo import zoo_cfg
from yolo_dist.errors import CfgError

HEAD = "[net]\nwidth=32\nheight=16\n[conv]\nfilters=6\nsize=3\npad=1\n"
HALVED = "[conv]\nfilters=6\nsize=3\npad=1\nstride=2\n"


@pytest.mark.parametrize(
    ("name", "parameters", "floats", "layers", "gmacs_416", "gmacs_608"),
    [
        ("yolov3", 61_949_149, 62_001_757, 107, 32.93, 70.35),
        ("yolov3-spp", 62_998_749, 63_052_381, 114, 33.11, 70.72),
        ("yolov3-tiny", 8_852_366, 8_858_734, 24, 2.78, 5.94),
        ("yolov3-mobilenet", 24_209_877, 24_251_333, 97, 9.02, 19.27),
        ("yolov3tiny-mobilenet-small", 3_041_430, 3_056_774, 61, 0.80, 1.70),
        ("yolov4", 64_363_101, 64_429_405, 162, 30.05, 64.20),
        ("yolov4-tiny", 6_056_606, 6_062_814, 38, 3.45, 7.38),
    ],
)
def test_the_zoo_has_the_published_counts(
    name: str, parameters: int, floats: int, layers: int, gmacs_416: float, gmacs_608: float
) -> None:
    cfg = zoo_cfg(name)
    assert (count_parameters(cfg), count_weight_floats(cfg), len(cfg.layers)) == (parameters, floats, layers)
    assert count_macs(cfg) / 1e9 == pytest.approx(gmacs_416, abs=0.0055)
    assert count_macs(cfg, (608, 608)) / 1e9 == pytest.approx(gmacs_608, abs=0.0055)


@pytest.mark.parametrize("name", ["yolov3-tiny", "yolov3tiny-mobilenet-small", "yolov4-tiny"])
def test_shapes_and_parameters_equal_those_of_the_torch_network(name: str) -> None:
    cfg = zoo_cfg(name, classes=2, image_size=(96, 64))
    network = Network(cfg).eval()
    with torch.no_grad():
        _, outputs = network.forward_features(torch.rand(1, 3, 64, 96), range(len(cfg.layers)))
    heads = {head.layer for head in network.heads}
    for index, shape in enumerate(infer_shapes(cfg)):
        assert shape.parameters == sum(parameter.numel() for parameter in network.layers[index].parameters())
        if index not in heads:
            assert outputs[index].shape[1:] == (shape.out_channels, shape.height, shape.width)


@settings(deadline=None, max_examples=100)
@given(st.integers(1, 7), st.integers(1, 4), st.integers(0, 6), st.integers(8, 40), st.integers(8, 40))
def test_any_window_has_the_output_size_that_torch_gives(
    size: int, stride: int, padding: int, width: int, height: int
) -> None:
    layers = (
        Convolutional(filters=2, size=size, stride=stride, padding=padding),
        Maxpool(size=size, stride=1, padding=min(padding, size - 1)),
    )
    cfg = Cfg(Net(width=width, height=height), layers)
    try:
        *_, shape = infer_shapes(cfg)
    except CfgError:
        assert (min(width, height) + 2 * padding - size) // stride + 1 < size
        return
    _, outputs = Network(cfg).eval().forward_features(torch.rand(1, 3, height, width), {1})
    assert outputs[1].shape == (1, 2, shape.height, shape.width)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        pytest.param(HALVED + "[shortcut]\nfrom=0", r"layer 2 \[shortcut\]: joins maps of 16×8 and 32×16", id="size"),
        pytest.param(
            "[conv]\nfilters=4\n[shortcut]\nfrom=0", r"layer 2 .* adds layers of 4 and 6 channels", id="width"
        ),
        pytest.param(HALVED + "[route]\nlayers=0,1", r"layer 2 \[route\]: joins maps of 32×16 and 16×8", id="route"),
        pytest.param("[route]\nlayers=0\ngroups=4", r"layer 1 .* groups 4 does not divide 6 channels", id="slices"),
        pytest.param("[conv]\nfilters=8\ngroups=4", r"layer 1 .* groups 4 does not divide 6 input", id="groups"),
        pytest.param(
            "[conv]\nfilters=8\ngroups=3", r"layer 1 .* 6 input channels and 8 filters", id="groups of filters"
        ),
        pytest.param("[depthwise]\nfilters=5", r"layer 1 \[depthwise\]: filters is 5, but .* 6", id="depthwise"),
        pytest.param("[se]\nfilters=5", r"layer 1 \[se\]: filters is 5, but the input has 6", id="squeeze-excite"),
        pytest.param(
            "[conv]\nsize=17", r"layer 1 .* window of 17 does not fit into 16", id="kernel larger than the map"
        ),
        pytest.param("[upsample]", r"layer 1 \[upsample\]: upsampling stride 1 by 2", id="more than the image"),
        pytest.param("[yolo]\nanchors=1,2\nclasses=3", r"reads 6 channels, but needs 1 anchors × \(5 \+ 3", id="head"),
    ],
)
def test_layers_that_do_not_fit_are_named(text: str, message: str) -> None:
    cfg = parse_cfg(HEAD + text, "x.cfg")
    with pytest.raises(CfgError, match=r"x\.cfg: " + ("layer" if "layer" not in message else "") + ".*" + message):
        infer_shapes(cfg)


def test_an_image_that_is_no_multiple_of_the_stride_is_an_error_that_names_its_size() -> None:
    with pytest.raises(CfgError, match=r"layer 20 \[route\]: joins maps of 14×14 and 13×13 cells.*input image 208×208"):
        infer_shapes(zoo_cfg("yolov3-tiny"), (208, 208))
