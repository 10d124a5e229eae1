"""The network as a whole."""

import pytest
import torch
from torch import nn

from yolo_dist.darknet.cfg import parse_cfg
from yolo_dist.darknet.heads import decode_heads
from yolo_dist.darknet.layers import Convolution
from yolo_dist.darknet.network import Network, initialize, is_new
from yolo_dist.darknet.weights import weights_bytes
from yolo_dist.darknet.zoo import ZOO, zoo_cfg
from yolo_dist.errors import CfgError

STRIDES = {
    "yolov3": [32, 16, 8],
    "yolov3-spp": [32, 16, 8],
    "yolov3-tiny": [32, 16],
    "yolov3-tiny-3l": [32, 16, 8],
    "yolov3-mobilenet": [32, 16, 8],
    "yolov3tiny-mobilenet-small": [32, 16],
    "yolov4": [8, 16, 32],
    "yolov4-tiny": [32, 16],
}


@pytest.mark.parametrize("name", ZOO)
def test_every_backbone_gives_finite_rows_of_every_head(name: str) -> None:
    network = Network(zoo_cfg(name, classes=3)).eval().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    with torch.no_grad():
        raws = network(torch.rand(1, 3, 64, 96))
    assert [head.stride for head in network.heads] == STRIDES[name]
    assert [raw.shape for raw in raws] == [(1, 3, 64 // s, 96 // s, 8) for s in STRIDES[name]]
    rows = decode_heads(network.heads, raws)
    assert rows.shape == (1, sum(3 * (64 // s) * (96 // s) for s in STRIDES[name]), 8)
    assert torch.isfinite(rows).all()


def tiny() -> Network:
    network = Network(zoo_cfg("yolov4-tiny", classes=2, width=0.125))
    initialize(network, seed=0)
    return network


def test_memory_format_and_autocast_change_only_the_last_digits() -> None:
    images = torch.rand(2, 3, 64, 64)
    network = tiny().eval()
    plain = decode_heads(network.heads, network(images))
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    torch.testing.assert_close(decode_heads(network.heads, network(images)), plain, rtol=1e-4, atol=1e-3)
    with torch.autocast("cpu", torch.bfloat16):
        rows = decode_heads(network.heads, network(images))
    assert rows.dtype == torch.float32
    torch.testing.assert_close(rows, plain, rtol=0.1, atol=1.5)


def test_training_reaches_every_parameter() -> None:
    network = tiny().train()
    rows = decode_heads(network.heads, network(torch.rand(2, 3, 64, 64)))
    rows[..., 4:].sum().backward()
    without = [name for name, parameter in network.named_parameters() if parameter.grad is None]
    assert without == []


def test_chosen_layers_come_out_beside_the_heads() -> None:
    network = tiny().eval()
    images = torch.rand(1, 3, 64, 64)
    raws, features = network.forward_features(images, {0, 9})
    assert sorted(features) == [0, 9]
    assert features[9].shape == (1, 16, 8, 8)
    for raw, again in zip(raws, network(images), strict=True):
        torch.testing.assert_close(raw, again, rtol=0, atol=0)


def test_outputs_are_dropped_after_their_last_reader() -> None:
    cfg = parse_cfg("[net]\nwidth=8\nheight=8\n[conv]\n[conv]\n[conv]\n[shortcut]\nfrom=0\n[conv]\n")
    assert Network(cfg)._finished == [[], [], [1], [0, 2], [3, 4]]


def test_the_same_seed_gives_the_same_network_and_another_seed_another() -> None:
    network = tiny()
    first = weights_bytes(network)
    initialize(network, seed=1)
    second = weights_bytes(network)
    torch.manual_seed(99)
    assert weights_bytes(tiny()) == first != second


def test_untrained_heads_expect_few_objects_and_no_class_more_than_others() -> None:
    network = tiny().eval()
    for feeder in network.cfg.head_convolutions.values():
        head = network.layers[feeder]
        assert isinstance(head, Convolution)
        nn.init.zeros_(head.conv.weight)
    raws = network(torch.rand(1, 3, 640, 640))
    for raw in raws:
        assert raw[:, 0, ..., 4].sigmoid().sum().item() == pytest.approx(8, rel=1e-3)
        assert raw[..., 5:].sigmoid().mean().item() == pytest.approx(0.6 / 2, rel=1e-3)


def test_a_network_is_new_until_a_head_is_trained_whatever_its_backbone_has_seen() -> None:
    network = tiny()
    network.train()(torch.rand(2, 3, 64, 64))
    with torch.no_grad():
        network.get_parameter("layers.0.conv.weight").mul_(2)
    assert is_new(network)
    feeder = next(iter(network.cfg.head_convolutions.values()))
    with torch.no_grad():
        network.get_parameter(f"layers.{feeder}.conv.bias")[4] += 1e-6
    assert not is_new(network)
    initialize(network, seed=1)
    assert is_new(network)


def test_batch_norm_starts_neutral_with_darknets_constants() -> None:
    network = tiny()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight)
    initialize(network, seed=0)
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    assert len(norms) == 19
    assert all(norm.weight.eq(1).all() and norm.bias.eq(0).all() for norm in norms)
    assert {(norm.eps, norm.momentum) for norm in norms} == {(1e-5, 0.03)}


def test_layers_that_do_not_fit_are_refused_before_anything_is_built() -> None:
    cfg = parse_cfg("[net]\nwidth=8\nheight=8\n[conv]\nfilters=4\n[se]\nfilters=5\n", "x.cfg")
    with pytest.raises(CfgError, match=r"x\.cfg: layer 1 \[se\]"):
        Network(cfg)
