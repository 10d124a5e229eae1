"""A dump for FPGAs holds the whole network."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dump_machine
import pytest
import torch
from every_layer import quantized
from small_networks import random_images

from yolo_dist.compress.quantization.integer import IntegerNetwork, integer_network
from yolo_dist.errors import ConfigError, DumpCorrupt, NotExportable
from yolo_dist.export.fpga import export_fpga, read_fpga

SHIFTS: dict[str, Any] = {"power_of_two": True, "fold_batchnorm": True}


@pytest.fixture(scope="module")
def dump(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dump in tiles that leave remainders."""
    folder = tmp_path_factory.mktemp("dump") / "fpga"
    export_fpga(quantized(**SHIFTS), folder, (3, 5))
    return folder


def everything(network: IntegerNetwork) -> list[torch.Tensor]:
    """What all operations give for one image."""
    outputs = {-1: network.image.steps(random_images(1))}
    for place, operation in enumerate(network.operations):
        outputs[place] = operation(*[outputs[source] for source in operation.sources])
    return list(outputs.values())


@pytest.mark.parametrize("tile", [None, (1, 1), (3, 5), (8, 4), (64, 64)], ids=str)
@pytest.mark.parametrize("config", [{}, {"scheme": "dorefa"}, {"weight_bits": 3, "activation_bits": 5}], ids=str)
def test_the_network_comes_back_bit_for_bit(
    tmp_path: Path, tile: tuple[int, int] | None, config: dict[str, Any]
) -> None:
    network = quantized(**SHIFTS, **config)
    export_fpga(network, tmp_path, tile)
    dumped, made = read_fpga(tmp_path), integer_network(network)
    for ours, theirs in zip(everything(dumped), everything(made), strict=True):
        assert ours.equal(theirs)
    for ours, theirs in zip(dumped(random_images(1)), made(random_images(1)), strict=True):
        assert ours.equal(theirs)
    assert (dumped.heads, dumped.image, dumped.image_shape) == (made.heads, made.image, made.image_shape)


@pytest.mark.parametrize("symmetric", [True, False, "weights"])
def test_a_machine_that_only_knows_the_format_computes_the_same(tmp_path: Path, symmetric: bool | str) -> None:
    network = quantized(**SHIFTS, symmetric=symmetric)
    export_fpga(network, tmp_path, (3, 5))
    integers = integer_network(network)
    image = integers.image.steps(random_images(1))
    machine = dump_machine.run(tmp_path, image[0].numpy())
    for ours, theirs in zip(integers.run(image), machine, strict=True):
        assert ours[0].equal(torch.from_numpy(theirs))


def test_pixels_are_the_steps_that_the_format_says(dump: Path) -> None:
    pixels = torch.arange(256)
    steps = read_fpga(dump).image.steps(pixels.float() / 255)
    assert steps.tolist() == [min(255, (2 * pixel * 256 + 255) // 510) for pixel in pixels.tolist()]


def test_the_index_says_what_an_operation_is(dump: Path) -> None:
    index = json.loads((dump / "index.json").read_text())
    assert index["image_shape"] == [3, 32, 32]
    first, table = index["operations"][:2]
    assert (first["kind"], first["name"], first["sources"]) == ("convolution", "layers.0.before", [-1])
    assert first["shape"] == [8, 16, 16]
    assert first["weight"]["tile"] == [3, 5]
    assert first["weight"]["type"] == "int8"
    assert first["rescale"]["shift"]["every"] > 0
    assert (table["kind"], table["sources"], table["table"]["shape"]) == ("lookup", [0], [256])
    assert "multiplier" not in json.dumps([o for o in index["operations"] if o["kind"] != "sum"])


def test_files_are_those_of_the_index(dump: Path) -> None:
    named = {"index.json"} | set(files(json.loads((dump / "index.json").read_text())))
    assert {path.name for path in dump.iterdir()} == named


def files(value: Any) -> list[str]:
    """Every file that an index names."""
    if isinstance(value, dict):
        return [value["file"]] if "file" in value else [name for part in value.values() for name in files(part)]
    return [name for part in value for name in files(part)] if isinstance(value, list) else []


def test_a_second_dump_replaces_the_first(tmp_path: Path) -> None:
    export_fpga(quantized(**SHIFTS), tmp_path / "fpga")
    export_fpga(quantized(**SHIFTS, weight_bits=4), tmp_path / "fpga", (4, 4))
    assert read_fpga(tmp_path / "fpga").shifts_only
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.tex").touch()
    with pytest.raises(ConfigError, match="holds other files"):
        export_fpga(quantized(**SHIFTS), tmp_path / "other")


@pytest.mark.parametrize(
    ("config", "missing"),
    [
        ({}, "power_of_two: true and fold_batchnorm: true"),
        ({"power_of_two": True}, "takes fold_batchnorm: true;"),
        ({"fold_batchnorm": True}, "takes power_of_two: true;"),
    ],
)
def test_a_network_that_needs_multiplications_is_refused(tmp_path: Path, config: dict[str, Any], missing: str) -> None:
    with pytest.raises(NotExportable, match=missing):
        export_fpga(quantized(**config), tmp_path / "fpga")
    assert not (tmp_path / "fpga").exists()


def copy_of(dump: Path, folder: Path) -> Path:
    """The same files, to be damaged."""
    for path in dump.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    return folder


def test_a_damaged_or_missing_file_is_named(dump: Path, tmp_path: Path) -> None:
    bias = copy_of(dump, tmp_path) / "000-layers.0.before.bias.bin"
    content = bytearray(bias.read_bytes())
    content[3] ^= 1
    bias.write_bytes(content)
    with pytest.raises(DumpCorrupt, match=r"000-layers.0.before.bias.bin is damaged"):
        read_fpga(tmp_path)
    bias.unlink()
    with pytest.raises(DumpCorrupt, match=r"000-layers.0.before.bias.bin cannot be read"):
        read_fpga(tmp_path)


def _later(index: dict[str, Any]) -> None:
    index["operations"][0]["sources"] = [4]


def _headless(index: dict[str, Any]) -> None:
    index["heads"][0]["operation"] = 99


def _without_stride(index: dict[str, Any]) -> None:
    del index["operations"][0]["stride"]


def _extra(index: dict[str, Any]) -> None:
    index["operations"][0]["colour"] = "red"


def _newer(index: dict[str, Any]) -> None:
    index["format"] = 2


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_later, r"layers.0.before reads operation 4"),
        (_headless, r"a head reads operation 99"),
        (_without_stride, r"operations.0.convolution.stride: Field required"),
        (_extra, r"operations.0.convolution.colour: Unexpected keyword"),
        (_newer, r"not of format 1"),
    ],
)
def test_a_wrong_index_is_refused(
    dump: Path, tmp_path: Path, damage: Callable[[dict[str, Any]], None], message: str
) -> None:
    path = copy_of(dump, tmp_path) / "index.json"
    index = json.loads(path.read_text())
    damage(index)
    path.write_text(json.dumps(index))
    with pytest.raises(DumpCorrupt, match=message):
        read_fpga(tmp_path)


def test_a_folder_without_an_index_is_none(tmp_path: Path) -> None:
    with pytest.raises(DumpCorrupt, match="export to fpga"):
        read_fpga(tmp_path)
    (tmp_path / "index.json").write_text("{")
    with pytest.raises(DumpCorrupt, match="no JSON"):
        read_fpga(tmp_path)
