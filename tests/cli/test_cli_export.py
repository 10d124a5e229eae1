"""The commands `export` and `evaluate --runtime onnxruntime`."""

from pathlib import Path

import pytest
import tiny
from command_line import done, refused


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
