"""The command `prune`: every method from the command line, and bad input that leaves nothing behind."""

import json
import re
import shutil
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import pytest
import tiny
import torch
import typer
from command_line import done, refused
from small_networks import random_network

from yolo_dist.bundle import Bundle, open_bundle
from yolo_dist.cli.app import app
from yolo_dist.compress.importance import MEASURES
from yolo_dist.compress.pruning import METHODS
from yolo_dist.compress.quantization import QuantizationConfig, calibrate, quantize
from yolo_dist.compress.sparsity import batch_norm
from yolo_dist.darknet.cfg import Convolutional, Shortcut, Yolo
from yolo_dist.darknet.network import Network

ANCHORS = ((16.0, 16.0), (24.0, 24.0), (32.0, 32.0))


def residual_network() -> Network:
    """Two residual blocks and a head for the tiny dataset's three classes."""

    def conv(filters: int, size: int = 1, stride: int = 1) -> Convolutional:
        return Convolutional(batch_normalize=1, filters=filters, size=size, stride=stride, pad=1, activation="leaky")

    block = (conv(4), conv(16, 3), Shortcut(from_layer=-3))
    output = Convolutional(filters=24, activation="linear")
    yolo = Yolo(anchors=ANCHORS, num=3, classes=3, mask=(0, 1, 2))
    return random_network(conv(8, 3, 4), conv(16, 3, 4), *block, *block, output, yolo)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made")
    tiny.write_shards(folder)
    classes = tiny.make_bundle().classes
    Bundle(residual_network(), classes, tiny.SIZE).save(folder / "residual")
    tiny.make_bundle().save(folder / "bundle")
    return folder


@pytest.fixture
def folder(made: Path, tmp_path: Path) -> Path:
    """Shards, a bundle with residual blocks and one without."""
    return shutil.copytree(made, tmp_path, dirs_exist_ok=True)


def words(folder: Path, model: str = "residual") -> list[object]:
    return ["prune", "--model", folder / model, "--shards", folder / "shards", "--out", folder / "pruned"]


@pytest.mark.parametrize(
    "options",
    [
        ["--method", "regular", "--round-to", "4"],
        ["--method", "shortcut"],
        ["--method", "slim"],
        ["--method", "layer", "--shortcuts", "1"],
        ["--method", "layer-channel", "--shortcuts", "2"],
        ["--method", "layer-channel-regular", "--round-to", "2"],
        ["--target-parameters", "0.6"],
        ["--target-macs", "0.7", "--method", "slim"],
        ["--target-latency-ms", "1000"],
        ["--max-map-drop", "0.5"],
        ["--method", "eagle-eye", "--target-macs", "0.5", "--candidates", "3", "--reestimate-images", "8"],
    ],
    ids=" ".join,
)
def test_methods_and_targets_work_from_the_command_line(folder: Path, options: list[str]) -> None:
    proof = done(*words(folder), "--force", "--predict-images", "2", *options, "--json").json()
    assert proof["max_abs_difference"] <= 1e-4
    bundle = open_bundle(folder / "pruned")
    assert proof["parameters"]["after"] == sum(one.numel() for one in bundle.network.parameters())
    removed = len(json.loads((folder / "pruned" / "plan.json").read_text())["blocks"])
    assert len(bundle.network.layers) == 10 - 3 * removed
    if removed:
        assert bundle.lineage is not None
        assert [after for after in proof["channels"] if after["after"] == 0]


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        (["--method", "layer", "--shortcuts", "3"], "method layer: 3 residual blocks shall go, but the network has 2"),
        (["--method", "slim", "--shortcuts", "1"], "options: method slim does not use shortcuts"),
        (["--target-macs", "0.5", "--target-parameters", "9"], "options: target_parameters and target_macs are one"),
        (["--target-parameters", "3"], "method normal: target_parameters 3 cannot be met; the largest percent"),
        (["--method", "eagle-eye"], "options: eagle-eye judges networks after re-estimation"),
    ],
)
def test_requests_that_cannot_be_met_say_what_can(folder: Path, options: list[str], problem: str) -> None:
    (error,) = refused(*words(folder), "--force", *options)
    assert error.startswith(problem)
    assert not (folder / "pruned").exists()


@pytest.mark.parametrize("options", [["--method", "layer", "--percent", "0.4"], ["--method", "regular"]], ids=" ".join)
def test_a_request_that_cuts_nothing_says_so_in_one_line(folder: Path, options: list[str]) -> None:
    outcome = done(*words(folder), "--force", "--predict-images", "0", *options, "--json")
    parameters = outcome.json()["parameters"]
    assert parameters["after"] == parameters["before"]
    assert re.fullmatch(r"warning: method (layer|regular) cut nothing, .* round less \(round_to\)\n", outcome.err)


def test_layer_methods_on_a_network_without_shortcuts_name_what_works(folder: Path) -> None:
    (error,) = refused(*words(folder, "bundle"), "--method", "layer", "--force")
    assert "no shortcuts" in error
    assert error.endswith("try normal, regular or slim")


def test_gammas_that_are_all_equal_are_refused(folder: Path) -> None:
    bundle = open_bundle(folder / "residual")
    with torch.no_grad():
        for layer in (0, 1, 2, 3, 5, 6):
            batch_norm(bundle.network, layer).weight.fill_(-0.5)
    bundle.save(folder / "equal")
    (error,) = refused(*words(folder, "equal"), "--force")
    assert error.startswith("importance gamma is 0.5 for all channels that may be cut, so nothing tells them apart")
    assert not (folder / "pruned").exists()


def test_weights_that_are_no_numbers_are_refused_by_layer(folder: Path) -> None:
    bundle = open_bundle(folder / "residual")
    with torch.no_grad():
        bundle.network.get_parameter("layers.3.conv.weight")[0, 0, 0, 0] = float("nan")
    bundle.save(folder / "useless")
    (error,) = refused(*words(folder, "useless"), "--force")
    assert re.search(r"layer 3 \[convolutional\] has weights that are not finite", error)
    assert not (folder / "pruned").exists()


def test_splits_may_have_other_names(folder: Path) -> None:
    tiny.rename_splits(folder, train="training", val="valid")
    (error,) = refused(*words(folder, "bundle"), "--force")
    assert error == f"{folder}/shards: split 'val' is not converted, it holds training, valid; run yolo-dist convert"
    splits = ["--split", "valid", "--train-split", "training", "--reestimate-images", "4"]
    done(*words(folder, "bundle"), "--force", "--predict-images", "0", *splits)
    out = ["--out", folder / "sensitivity", "--percents", "0.3", *splits]
    done("sensitivity", "--model", folder / "bundle", "--shards", folder / "shards", *out)


def test_a_percent_at_which_nothing_can_be_cut_is_told_once(folder: Path) -> None:
    options = ["--dry-run", "--percent", "0.1", "--importance", "random"]
    out = done("prune", "--model", folder / "bundle", "--shards", folder / "shards", *options).out
    remark = "layer 0 would keep 0 of 8 channels at percent 0.9; the largest percent that works is 0.799"
    assert out.endswith(f"┘\n{remark}\n")
    assert out.count("layer 0") == 1
    header = next(line for line in out.splitlines() if "percent" in line and "mAP50" in line)
    assert header.count("┃") == 5


@pytest.mark.parametrize(("option", "names"), [("method", METHODS), ("importance", MEASURES)])
def test_help_names_everything_that_is_registered(option: str, names: Iterable[str]) -> None:
    parameters = typer.main.get_command(app).commands["prune"].params  # type: ignore[attr-defined]
    (text,) = [parameter.help for parameter in parameters if parameter.name == option]
    assert sorted(re.split(", | or ", text.rpartition(": ")[2].rstrip("."))) == sorted(names)


def test_a_quantised_bundle_is_refused(folder: Path) -> None:
    bundle = open_bundle(folder / "residual")
    network = quantize(bundle.network, QuantizationConfig())
    calibrate(network, [torch.rand(1, 3, 64, 64)], "minmax")
    replace(bundle, network=network).save(folder / "int8")
    (error,) = refused(*words(folder, "int8"), "--force")
    assert error.startswith("a quantised network cannot be pruned; prune the float bundle it was made from")
    assert not (folder / "pruned").exists()


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ("filters=16\nsize=3\nstride=1", "filters=12\nsize=3\nstride=1", "adds layers of 12 and 16 channels"),
        ("[shortcut]", "[crnn]", "unknown section"),
    ],
)
def test_a_cfg_that_no_network_can_be_built_from_is_refused_by_place(
    folder: Path, old: str, new: str, problem: str
) -> None:
    cfg = folder / "broken.cfg"
    text = (folder / "residual" / "model.cfg").read_text()
    assert old in text
    cfg.write_text(text.replace(old, new, 1))
    pair = ["--cfg", cfg, "--weights", folder / "residual" / "model.weights"]
    (error,) = refused("prune", *pair, "--shards", folder / "shards", "--out", folder / "pruned", "--force")
    assert error.startswith(f"{cfg}:")
    assert problem in error
    assert not (folder / "pruned").exists()
