"""A new network takes what fits of another model, and says what is new."""

import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import torch
from small_networks import cfg_of, conv, randomize
from tiny_runs import prepare, recipe

from yolo_dist.bundle import Bundle, open_bundle
from yolo_dist.config import validate
from yolo_dist.darknet.cfg import Maxpool, Yolo
from yolo_dist.darknet.network import Network, initialize, is_new
from yolo_dist.darknet.weights import save_weights, stored_tensors
from yolo_dist.darknet.zoo import zoo_cfg
from yolo_dist.data.card import find_card
from yolo_dist.errors import ConfigError, ModelError, WeightsMismatch
from yolo_dist.model import ModelSource, check_model
from yolo_dist.pipeline import run
from yolo_dist.warm_start import WarmStart, warm_start

BODY = (0, 2, 3)
"""Convolutions of the small network before its head's."""


def small(classes: int = 3, width: int = 8, seed: int = 0) -> Network:
    """Three convolutions, a head's, with random numbers."""
    head = Yolo(anchors=((8.0, 8.0),), num=1, mask=(0,), classes=classes)
    body = (conv(8, 3, 2), Maxpool(size=2, stride=2), conv(width, 3), conv(8, 1))
    network = Network(cfg_of(*body, conv(5 + classes, batch_normalize=0, activation="linear"), head))
    initialize(network, seed)
    return randomize(network, seed)


def names(count: int) -> tuple[str, ...]:
    return tuple("abcdefgh"[:count])


def as_bundle(network: Network, classes: tuple[str, ...] = names(3)) -> Bundle:
    return Bundle(network, classes, (32, 32))


def same_layers(one: Network, other: Network) -> list[int]:
    """Layers with numbers in which two networks agree to the last bit."""
    pairs = enumerate(zip(one.layers, other.layers, strict=True))
    stored = ((index, stored_tensors(mine), stored_tensors(theirs)) for index, (mine, theirs) in pairs)
    return [
        index
        for index, mine, theirs in stored
        if mine and all(torch.equal(a, b) for a, b in zip(mine, theirs, strict=True))
    ]


def test_a_bundle_of_other_classes_gives_all_but_the_head(tmp_path: Path) -> None:
    donor = small(classes=2, seed=1)
    as_bundle(donor, names(2)).save(tmp_path / "donor")
    network = small()
    report = warm_start(as_bundle(network), tmp_path / "donor")
    assert report == WarmStart(taken=BODY, new=(4,))
    assert str(report) == "3 of 4 layers with weights taken, new are 4"
    assert torch.equal(stored_tensors(network.layers[4])[1], stored_tensors(small().layers[4])[1])
    assert all(
        torch.equal(mine, theirs)
        for index in BODY
        for mine, theirs in zip(stored_tensors(network.layers[index]), stored_tensors(donor.layers[index]), strict=True)
    )


def test_a_network_with_new_heads_counts_as_new_and_one_with_trained_ones_does_not(tmp_path: Path) -> None:
    as_bundle(small(seed=1)).save(tmp_path / "donor")
    for classes, new in ((names(3), False), (("x", "y", "z"), True)):
        network = Network(small().cfg)
        initialize(network, seed=0)
        warm_start(as_bundle(network, classes), tmp_path / "donor")
        assert is_new(network) == new


def test_a_head_of_as_many_other_classes_stays_new_and_one_of_the_same_is_taken(tmp_path: Path) -> None:
    as_bundle(small(seed=1)).save(tmp_path / "donor")
    same, others = small(), small()
    assert str(warm_start(as_bundle(same), tmp_path / "donor")) == "4 of 4 layers with weights taken"
    assert warm_start(as_bundle(others, ("x", "y", "z")), tmp_path / "donor").new == (4,)
    assert same_layers(same, small(seed=1)) == [0, 2, 3, 4]
    assert same_layers(others, small(seed=1)) == [0, 2, 3]


def test_layers_of_another_shape_stay_new(tmp_path: Path) -> None:
    as_bundle(small(width=16, seed=1)).save(tmp_path / "donor")
    assert warm_start(as_bundle(small()), tmp_path / "donor") == WarmStart(taken=(0, 4), new=(2, 3))


def cut(network: Network, layers: int, path: Path) -> Path:
    """The first layers of a network as Darknet's `partial` writes them."""
    tensors = [tensor for layer in network.layers[:layers] for tensor in stored_tensors(layer)]
    body = np.concatenate([tensor.detach().numpy().ravel() for tensor in tensors])
    path.write_bytes(struct.pack("<3iq", 0, 2, 0, 32_000) + body.astype("<f4").tobytes())
    return path


@pytest.mark.parametrize(("layers", "taken"), [(1, (0,)), (2, (0,)), (3, (0, 2)), (4, (0, 2, 3))])
def test_a_weights_file_may_end_after_any_layer(layers: int, taken: tuple[int, ...], tmp_path: Path) -> None:
    network = small()
    report = warm_start(as_bundle(network), cut(small(seed=1), layers, tmp_path / f"small.conv.{layers}"))
    assert report.taken == taken == tuple(same_layers(network, small(seed=1)))


@pytest.mark.parametrize(
    ("name", "layers", "new"), [("yolov3-tiny", 15, "15, 18, 21-22"), ("yolov4-tiny", 29, "29, 32, 35-36")]
)
def test_published_backbones_leave_the_heads_new(name: str, layers: int, new: str, tmp_path: Path) -> None:
    """Files cut as yolov3-tiny.conv.15 and yolov4-tiny.conv.29 are, of networks an eighth as wide."""
    cfg = zoo_cfg(name, width=0.125)
    report = warm_start(Bundle(Network(cfg), names(3), (416, 416)), cut(Network(cfg), layers, tmp_path / "cut"))
    assert str(report).endswith(f"new are {new}")


def test_a_weights_file_of_other_classes_gives_all_but_the_head(tmp_path: Path) -> None:
    save_weights(small(classes=5, seed=1), tmp_path / "five.weights")
    assert warm_start(as_bundle(small()), tmp_path / "five.weights") == WarmStart(taken=BODY, new=(4,))


def test_a_weights_file_that_ends_within_a_layer_is_refused(tmp_path: Path) -> None:
    (tmp_path / "odd").write_bytes(struct.pack("<3iq", 0, 2, 0, 0) + b"\0" * 4 * 77)
    with pytest.raises(WeightsMismatch, match=r"holds 77 float32s, the cfg needs .*: it ends in layer 0"):
        warm_start(as_bundle(small()), tmp_path / "odd")


def test_a_model_of_which_nothing_fits_is_refused(tmp_path: Path) -> None:
    Bundle(Network(zoo_cfg("yolov3-tiny", width=0.125, classes=3)), ("x", "y", "z"), (416, 416)).save(
        tmp_path / "donor"
    )
    wide = Network(cfg_of(conv(24), conv(8, batch_normalize=0), Yolo(anchors=((8.0, 8.0),), num=1, classes=3)))
    with pytest.raises(ModelError, match="has no layer with weights of the shape"):
        warm_start(as_bundle(wide), tmp_path / "donor")


@pytest.mark.parametrize("other", [{"bundle": "b"}, {"cfg": "a.cfg", "weights": "a.weights"}])
def test_a_network_that_has_weights_takes_no_others(other: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="warm_start is for a network of the zoo or a cfg without weights"):
        validate(ModelSource, {"warm_start": "w", **other}, "model")


def test_a_recipe_starts_warm_and_again_when_the_file_changes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = prepare(tmp_path)
    donor = tiny.make_bundle(seed=3).network
    file = cut(donor, 4, folder / "tiny.conv.4")
    values = recipe(
        folder,
        model={"cfg": str(folder / "tiny.cfg"), "warm_start": str(file)},
        stages=[{"id": "file", "kind": "quantize"}],
    )
    run(values)
    said = capsys.readouterr().out
    assert f"warm start from {file}: 3 of 4 layers with weights taken, new are 4" in said
    initial = folder / "runs" / "tiny" / "initial"
    assert same_layers(open_bundle(initial).network, donor) == [0, 1, 3]
    run(values)
    assert "warm start" not in capsys.readouterr().out
    cut(tiny.make_bundle(seed=4).network, 4, file)
    run(values)
    assert "warm start" in capsys.readouterr().out


def test_a_warm_start_that_does_not_fit_is_found_before_anything_starts(tmp_path: Path) -> None:
    card = find_card(str(tiny.write_card(tmp_path)))
    (tmp_path / "odd").write_bytes(struct.pack("<3iq", 0, 2, 0, 0) + b"\0" * 4 * 77)
    source = validate(ModelSource, {"zoo": "yolov3-tiny", "width": 0.125, "warm_start": str(tmp_path / "odd")}, "model")
    with pytest.raises(WeightsMismatch, match="holds 77"):
        check_model(source, card, (64, 64))
    missing = validate(
        ModelSource, {"zoo": "yolov3-tiny", "width": 0.125, "warm_start": str(tmp_path / "none")}, "model"
    )
    with pytest.raises(ModelError, match="none: cannot be read"):
        check_model(missing, card, (64, 64))
