"""The commands `export`, for runtimes and FPGAs, and `evaluate --runtime onnxruntime`."""

import json
from dataclasses import replace
from pathlib import Path

import onnx
import pytest
import tiny
import torch
from command_line import done, refused

from yolo_dist.bundle import open_bundle
from yolo_dist.compress.quantization import QuantizationConfig, QuantizedNetwork, calibrate, quantize
from yolo_dist.compress.quantization.integer import integer_network
from yolo_dist.export.fpga import read_fpga


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle and converted scenes."""
    folder = tmp_path_factory.mktemp("export")
    tiny.write_shards(folder)
    tiny.make_bundle().save(folder / "bundle")
    return folder


def test_an_exported_file_is_as_accurate_as_the_bundle(folder: Path) -> None:
    record = done("export", "--model", folder / "bundle", "--out", folder / "whole.onnx", "--json").json()
    assert record["bytes"] == (folder / "whole.onnx").stat().st_size
    data = ["--shards", folder / "shards", "--json"]
    bundle = done("evaluate", "--model", folder / "bundle", *data).json()
    file = done("evaluate", "--runtime", "onnxruntime", "--model", folder / "whole.onnx", *data).json()
    assert file["map50"] == pytest.approx(bundle["map50"], abs=1e-3)


def test_export_says_how_large_and_how_fast_the_file_is(folder: Path) -> None:
    out = done("export", "--model", folder / "bundle", "--output", "raw", "--out", folder / "raw.onnx").out
    assert out.startswith(f"{folder}/raw.onnx: ")
    assert "KiB; an image takes " in out
    assert out.endswith(" with 2 threads in ONNX Runtime\n")


def test_a_float_bundle_has_no_integers_to_export(folder: Path) -> None:
    problems = refused("export", "--model", folder / "bundle", "--format", "onnx-int8", "--out", folder / "int8.onnx")
    assert problems == ["the network is not quantised; quantise it first, or take format onnx"]
    assert not (folder / "int8.onnx").exists()


def test_options_that_a_file_has_no_use_for_are_refused(folder: Path) -> None:
    data = ["--shards", folder / "shards", "--model", folder / "bundle"]
    assert refused("evaluate", "--runtime", "onnxruntime", "--image-size", "64", *data) == [
        "options: --runtime onnxruntime takes --model FILE.onnx, whose input size is its own"
    ]
    assert refused("evaluate", "--runtime", "tensorrt", *data) == [
        "options: --runtime tensorrt is not there; take torch or onnxruntime"
    ]
    assert refused("export", "--model", folder / "bundle", "--output", "masks", "--out", folder / "masks.onnx") == [
        "options: output: Input should be 'boxes', 'raw' or 'detections' (got 'masks')"
    ]


@pytest.mark.parametrize("output", ["boxes", "raw"])
def test_a_confidence_is_refused_where_nothing_is_left_out(folder: Path, output: str) -> None:
    words = ["--model", folder / "bundle", "--output", output, "--out", folder / "never.onnx"]
    assert refused("export", *words, "--confidence", "0.25") == [
        f"options: --confidence is for --output detections; {output} leaves nothing out"
    ]
    assert not (folder / "never.onnx").exists()


def test_a_file_of_detections_knows_their_least_score(folder: Path) -> None:
    words = ["--model", folder / "bundle", "--output", "detections", "--out", folder / "found.onnx"]
    for options, confidence in (([], 0.25), (["--confidence", "0.5"], 0.5)):
        done("export", *words, *options)
        properties = {entry.key: entry.value for entry in onnx.load(folder / "found.onnx").metadata_props}
        assert json.loads(properties["export"])["confidence"] == confidence


def shifting_bundle(folder: Path) -> Path:
    bundle = tiny.make_bundle()
    network = quantize(bundle.network, QuantizationConfig(power_of_two=True, fold_batchnorm=True))
    calibrate(network, [torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))], "minmax")
    replace(bundle, network=network).save(folder / "shifting")
    return folder / "shifting"


def test_a_dump_for_an_fpga_reads_back_as_the_integers_of_the_bundle(folder: Path) -> None:
    model = shifting_bundle(folder)
    out = done("export", "--model", model, "--format", "fpga", "--tile", "4x3", "--out", folder / "fpga").out
    assert out.endswith(" KiB of integers; index.json says what they are\n")
    network = open_bundle(model).network
    assert isinstance(network, QuantizedNetwork)
    images = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(2))
    for read, made in zip(read_fpga(folder / "fpga")(images), integer_network(network)(images), strict=True):
        assert torch.equal(read, made)


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        (["--format", "fpga"], "format fpga takes a quantised bundle; quantise with power_of_two and fold_batchnorm"),
        (["--tile", "4x4"], "options: --tile is for --format fpga"),
        (
            ["--format", "fpga", "--opset", "17", "--output", "raw"],
            "options: --output and --opset are for ONNX files, not for --format fpga",
        ),
        (
            ["--format", "fpga", "--confidence", "0.25"],
            "options: --confidence is for ONNX files, not for --format fpga",
        ),
        (["--format", "tflite"], "options: --format tflite is none of onnx, onnx-int8, fpga"),
    ],
)
def test_what_an_fpga_cannot_take_is_refused(folder: Path, options: list[str], problem: str) -> None:
    assert refused("export", "--model", folder / "bundle", *options, "--out", folder / "never") == [problem]
    assert not (folder / "never").exists()


def test_a_tile_that_is_none_is_refused(folder: Path) -> None:
    words = ["--model", shifting_bundle(folder), "--format", "fpga", "--tile", "4", "--out", folder / "never"]
    assert refused("export", *words) == ["tile: 4 is none; give output and input channels as TMxTN, such as 32x4"]
