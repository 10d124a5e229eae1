"""Weights files: byte layout, round trips, and every way of not fitting."""

import struct
from pathlib import Path

import numpy as np
import pytest
import torch

from yolo_dist.darknet.cfg import Cfg, parse_cfg
from yolo_dist.darknet.layers import Convolution, SqueezeExcitation
from yolo_dist.darknet.network import Network, initialize
from yolo_dist.darknet.weights import LoadReport, load_weights, read_back, read_weights, save_weights, weights_bytes
from yolo_dist.darknet.zoo import zoo_cfg
from yolo_dist.errors import ModelError, WeightsMismatch

HEADER_BYTES = 20
SMALL = """[net]
width=32
height=32
[convolutional]
batch_normalize=1
filters=4
size=3
pad=1
activation=leaky
[depthwise]
batch_normalize=1
filters=4
size=3
pad=1
activation=relu6
[se]
filters=4
[maxpool]
size=2
stride=2
[convolutional]
filters={filters}
size=1
activation=linear
[yolo]
anchors=10,14
classes={classes}
"""


def small(classes: int = 2) -> Cfg:
    return parse_cfg(SMALL.format(classes=classes, filters=5 + classes), "small.cfg")


def filled(cfg: Cfg, seed: int = 0) -> Network:
    """A network no two numbers of which are alike, batch statistics included."""
    network = Network(cfg)
    generator = torch.Generator().manual_seed(seed)
    for tensor in network.state_dict().values():
        if tensor.is_floating_point():
            tensor.uniform_(0.1, 1.0, generator=generator)
    return network


def test_the_file_holds_every_layer_in_darknets_order() -> None:
    network = filled(small())
    conv, depthwise, gate, _, head, _ = network.layers
    assert isinstance(conv, Convolution)
    assert isinstance(depthwise, Convolution)
    assert isinstance(gate, SqueezeExcitation)
    assert isinstance(head, Convolution)
    expected: list[torch.Tensor] = []
    for layer in (conv, depthwise):
        norm = layer.norm
        assert norm is not None
        assert norm.running_mean is not None
        assert norm.running_var is not None
        expected += [norm.bias, norm.weight, norm.running_mean, norm.running_var, layer.conv.weight]
    assert head.conv.bias is not None
    expected += [gate.fc1.weight, gate.fc2.weight, head.conv.bias, head.conv.weight]
    body = b"".join(struct.pack(f"<{t.numel()}f", *t.flatten().tolist()) for t in expected)
    assert weights_bytes(network, seen=7) == struct.pack("<iiiq", 0, 2, 5, 7) + body


@pytest.mark.parametrize(
    "cfg", [small(), zoo_cfg("yolov3tiny-mobilenet-small", width=0.25, classes=3)], ids=["small", "zoo"]
)
def test_saving_and_loading_gives_the_same_network(cfg: Cfg, tmp_path: Path) -> None:
    path = tmp_path / "a.weights"
    saved = filled(cfg).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    save_weights(saved, path, seen=123_456_789_012)
    loaded = Network(cfg)
    assert load_weights(loaded, path) == LoadReport(seen=123_456_789_012)
    for name, tensor in saved.state_dict().items():
        if not name.endswith("num_batches_tracked"):
            assert torch.equal(tensor, loaded.state_dict()[name]), name


def test_old_versions_have_a_shorter_header(tmp_path: Path) -> None:
    path = tmp_path / "old.weights"
    body = weights_bytes(filled(small()))[HEADER_BYTES:]
    path.write_bytes(struct.pack("<iiii", 0, 1, 0, 32_000) + body)
    weights = read_weights(path)
    assert (weights.major, weights.minor, weights.revision, weights.seen) == (0, 1, 0, 32_000)
    assert load_weights(Network(small()), path).seen == 32_000
    assert weights.floats.dtype == np.float32


@pytest.mark.parametrize(
    ("data", "message"),
    [
        pytest.param(b"", r"0 bytes do not hold Darknet's header", id="empty"),
        pytest.param(struct.pack("<iii", 0, 2, 5) + b"1234", r"16 bytes do not hold", id="cut in the header"),
        pytest.param(b"\x80\x02}q\x00" * 9, r"no Darknet weights file", id="a pickle"),
        pytest.param(struct.pack("<iiiq", 0, 2, 5, 0) + b"12345", r"5 bytes after the header", id="cut in a number"),
    ],
)
def test_files_of_another_kind_are_refused(data: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "odd.weights"
    path.write_bytes(data)
    with pytest.raises(WeightsMismatch, match=r"odd\.weights: .*" + message):
        read_weights(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"absent\.weights: cannot be read \(No such file"):
        read_weights(tmp_path / "absent.weights")


FLOATS = [4 * 4 + 4 * 3 * 9, 4 * 4 + 4 * 9, 4 + 4, 0, 7 + 7 * 4]
TOTAL = sum(FLOATS)


@pytest.mark.parametrize(
    ("floats", "message"),
    [
        pytest.param(0, f"holds 0 float32s, the cfg needs {TOTAL}: it ends in layer 0 ", id="nothing"),
        pytest.param(FLOATS[0] - 1, r"it ends in layer 0 \[convolutional\]", id="one short in the first layer"),
        pytest.param(
            FLOATS[0], r"it ends in layer 1 \[depthwise\].* a backbone of 1 layers", id="after the first layer"
        ),
        pytest.param(sum(FLOATS[:2]) + 3, r"it ends in layer 2 \[se\]", id="in the gate"),
        pytest.param(sum(FLOATS[:4]), r"it ends in layer 4 .* a backbone of 4 layers", id="before the head"),
        pytest.param(
            TOTAL - 1, f"holds {TOTAL - 1} float32s, the cfg needs {TOTAL}: it ends in layer 4", id="one short"
        ),
        pytest.param(TOTAL + 1, r"1 are left after the last layer, 5; take the cfg that belongs to it$", id="one over"),
        pytest.param(TOTAL + 15, r"15 are left .* skip the heads, which it has for 5 classes", id="other classes"),
    ],
)
def test_a_file_that_does_not_fit_says_both_counts_and_leaves_the_network_alone(
    floats: int, message: str, tmp_path: Path
) -> None:
    path = tmp_path / "bad.weights"
    path.write_bytes(struct.pack("<iiiq", 0, 2, 5, 0) + np.zeros(floats, "<f4").tobytes())
    network = filled(small())
    before = weights_bytes(network)
    with pytest.raises(WeightsMismatch, match=r"bad\.weights: .*" + message):
        load_weights(network, path)
    assert weights_bytes(network) == before


def test_a_backbone_loads_only_by_its_number_of_layers(tmp_path: Path) -> None:
    path = tmp_path / "tiny.conv.15"
    source, target = filled(zoo_cfg("yolov3-tiny", width=0.125)), filled(zoo_cfg("yolov3-tiny", width=0.125), seed=1)
    size = sum(tensor.numel() for i in range(15) for tensor in source.layers[i].state_dict().values() if tensor.dim())
    path.write_bytes(weights_bytes(source)[: HEADER_BYTES + 4 * size])
    head = target.layers[22].state_dict()["conv.weight"].clone()
    with pytest.raises(WeightsMismatch, match=r"it ends in layer 15 .* a backbone of 15 layers"):
        load_weights(target, path)
    with pytest.raises(WeightsMismatch, match=r"are left after the last layer, 13; .* a backbone of 15 layers"):
        load_weights(target, path, layers=14)
    with pytest.raises(WeightsMismatch, match=r"layers=99 asked for; the cfg has 24"):
        load_weights(target, path, layers=99)
    load_weights(target, path, layers=15)
    for mine, theirs in zip(target.layers[:15].parameters(), source.layers[:15].parameters(), strict=True):
        assert torch.equal(mine, theirs)
    assert torch.equal(target.layers[22].state_dict()["conv.weight"], head)


@pytest.mark.parametrize("classes", [1, 3, 80])
def test_weights_of_another_class_count_load_all_but_the_heads(classes: int, tmp_path: Path) -> None:
    path = tmp_path / "other.weights"
    source = filled(zoo_cfg("yolov3-tiny", width=0.125, classes=classes))
    target = filled(zoo_cfg("yolov3-tiny", width=0.125, classes=3), seed=1)
    heads = {i: {k: v.clone() for k, v in target.layers[i].state_dict().items()} for i in (15, 22)}
    save_weights(source, path, seen=5)
    assert load_weights(target, path, skip_heads=True) == LoadReport(seen=5, skipped_heads=(15, 22))
    for index in range(24):
        expected = heads.get(index) or source.layers[index].state_dict()
        for name, tensor in target.layers[index].state_dict().items():
            assert torch.equal(tensor, expected[name]), (index, name)


def test_skipping_heads_does_not_excuse_a_file_that_fits_no_class_count(tmp_path: Path) -> None:
    path = tmp_path / "bad.weights"
    path.write_bytes(weights_bytes(filled(small(4))) + b"1234")
    with pytest.raises(WeightsMismatch, match=r"bad\.weights: holds \d+ float32s, the cfg needs \d+"):
        load_weights(Network(small()), path, skip_heads=True)


def test_a_network_fresh_from_its_seed_survives_the_file(tmp_path: Path) -> None:
    cfg = zoo_cfg("yolov4-tiny", width=0.125, classes=2)
    network, again = Network(cfg), Network(cfg)
    initialize(network, seed=3)
    save_weights(network, tmp_path / "b.weights")
    load_weights(again, tmp_path / "b.weights")
    images = torch.rand(1, 3, 64, 64)
    for mine, theirs in zip(network.eval()(images), again.eval()(images), strict=True):
        assert torch.equal(mine, theirs)


@pytest.mark.parametrize("training", [True, False])
def test_a_network_read_back_is_the_one_that_its_files_give(training: bool) -> None:
    network = filled(small()).train(training)
    again = read_back(network)
    assert again.cfg == network.cfg
    assert again.training == training
    assert weights_bytes(again) == weights_bytes(network)
    assert again.get_parameter("layers.0.conv.weight") is not network.get_parameter("layers.0.conv.weight")
