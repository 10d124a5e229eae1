"""The command `quantize`: from a float bundle to a quantised one that other commands take."""

from pathlib import Path

import pytest
import tiny
from command_line import done, refused

from yolo_dist.bundle import open_bundle
from yolo_dist.compress.quantization import QuantizedNetwork


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A bundle, its card and shards."""
    tiny.write_cfg(tmp_path)
    tiny.write_shards(tmp_path)
    tiny.make_bundle().save(tmp_path / "bundle")
    return tmp_path


def words(folder: Path, model: str) -> list[object]:
    return ["--model", folder / model, "--shards", folder / "shards", "--dataset", folder / "tiny.yaml"]


def test_a_quantised_bundle_is_evaluated_and_detects_like_any_other(folder: Path) -> None:
    options = ["quantized.per_channel=true", "quantized.calibration_images=4", "--json"]
    (row,) = done("quantize", *words(folder, "bundle"), "--out", folder / "runs" / "int8", *options).json()
    assert (row["kind"], row["latency_ms"]) == ("quantize", None)
    made = "runs/int8/stages/quantized"
    network = open_bundle(folder / made).network
    assert isinstance(network, QuantizedNetwork)
    assert network.config.per_channel
    assert done("evaluate", *words(folder, made), "--json").json()["map50"] == row["map50"]


def test_a_card_of_ones_own_is_asked_for_by_the_option(folder: Path) -> None:
    model, shards = ["--model", folder / "bundle"], folder / "shards"
    assert refused("quantize", *model, "--shards", shards, "--out", folder / "out") == [
        f"options: {shards} was converted by a card of your own, tiny; give it: --dataset CARD.yaml"
    ]
    assert not (folder / "out").exists()


def test_splits_may_have_other_names(folder: Path) -> None:
    tiny.rename_splits(folder, train="training", val="valid")
    missing = refused("quantize", *words(folder, "bundle"), "--out", folder / "out", "--train-split", "training")
    assert missing == [
        f"options: {folder}/shards: split 'val' is not converted, it holds training, valid; run yolo-dist convert"
    ]
    splits = ["--split", "valid", "--train-split", "training", "quantized.calibration_images=4", "--json"]
    (row,) = done("quantize", *words(folder, "bundle"), "--out", folder / "out", *splits).json()
    assert row["kind"] == "quantize"


def test_a_quantised_bundle_is_not_quantised_again(folder: Path) -> None:
    quick = ["quantized.calibration_images=4"]
    done("quantize", *words(folder, "bundle"), "--out", folder / "runs" / "int8", *quick)
    again = ["--out", folder / "runs" / "again", *quick]
    (error,) = refused("quantize", *words(folder, "runs/int8/stages/quantized"), *again)
    assert "kind quantize needs a float network, and what it starts from is quantised" in error
    assert not (folder / "runs" / "again").exists()


def test_bits_that_no_grid_has_are_refused(folder: Path) -> None:
    (error,) = refused("quantize", *words(folder, "bundle"), "--out", folder / "out", "quantized.weight_bits=1")
    assert "weight_bits: Input should be greater than or equal to 2 (got 1)" in error
