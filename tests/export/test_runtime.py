"""Exported files in ONNX Runtime: the accuracy of the network, and what is said about other files."""

from pathlib import Path

import numpy as np
import onnx
import pytest
import tiny
import torch
from quantized_networks import FAST, calibrated, exported, photos
from small_networks import conv, head, random_network

from yolo_dist.bundle import Bundle
from yolo_dist.data.shards import ShardSet, open_split
from yolo_dist.errors import ModelError, NotExportable
from yolo_dist.evaluate.evaluator import evaluate
from yolo_dist.export.onnx import ExportConfig, export_onnx
from yolo_dist.export.runtime import load_exported, open_exported
from yolo_dist.export.write import ExportRecord, export_file


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> ShardSet:
    return open_split(tiny.write_shards(tmp_path_factory.mktemp("data")), "val")


def written(folder: Path, bundle: Bundle, **config: str) -> ExportRecord:
    return export_file(bundle, ExportConfig.model_validate(config), folder / "model.onnx")


def test_a_file_evaluates_to_the_accuracy_of_its_network(scenes: ShardSet, tmp_path: Path) -> None:
    bundle = tiny.make_bundle()
    written(tmp_path, bundle)
    own = evaluate(bundle.network, scenes, bundle.image_size)
    file = evaluate(open_exported(tmp_path / "model.onnx"), scenes, bundle.image_size)
    assert own is not None
    assert file is not None
    for expected, found in zip(own.detections, file.detections, strict=True):
        assert len(expected) > 0
        np.testing.assert_allclose(found.xyxy, expected.xyxy, atol=1e-2)


def test_an_integer_file_evaluates_to_nearly_the_accuracy_that_was_simulated(scenes: ShardSet, tmp_path: Path) -> None:
    whole = tiny.make_bundle()
    bundle = Bundle(calibrated(whole.network, whole.image_size, **FAST), whole.classes, whole.image_size)
    written(tmp_path, bundle, format="onnx-int8")
    own = evaluate(bundle.network, scenes, bundle.image_size)
    file = evaluate(open_exported(tmp_path), scenes, bundle.image_size)
    assert own is not None
    assert file is not None
    assert own.metrics.map50 is not None
    assert file.metrics.map50 == pytest.approx(own.metrics.map50, abs=0.02)


def test_the_record_of_a_file_tells_its_size_and_its_speed_with_one_and_two_threads(tmp_path: Path) -> None:
    bundle = tiny.make_bundle().save(tmp_path / "bundle")
    record = written(tmp_path, bundle)
    assert record.bytes == (tmp_path / "model.onnx").stat().st_size
    assert record.bundle == bundle.fingerprint
    assert sorted(record.latency_ms) == [1, 2]
    assert min(record.latency_ms.values()) > 0


def test_nothing_is_written_of_a_network_that_does_not_go_with_the_format(tmp_path: Path) -> None:
    with pytest.raises(NotExportable):
        written(tmp_path, tiny.make_bundle(), format="onnx-int8")
    assert list(tmp_path.iterdir()) == []


def test_a_loaded_file_knows_its_classes_and_size() -> None:
    model = export_onnx(Bundle(random_network(conv(8, 3, 2), *head(classes=2)), ("dog", "cat"), (64, 32)))
    file = load_exported(model.SerializeToString(), "dogs.onnx")
    assert (file.classes, file.image_size) == (("dog", "cat"), (64, 32))
    images = torch.from_numpy(photos(2, (64, 32)))
    assert file(images).shape == (2, 16 * 32 * 2, 7)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"none.onnx: no such file; `yolo-dist export` writes one"):
        open_exported(tmp_path / "none.onnx")


def test_what_is_no_onnx_is_refused() -> None:
    with pytest.raises(ModelError, match=r"photo.jpg: ONNX Runtime cannot load it"):
        load_exported(b"\xff\xd8\xff", "photo.jpg")


def test_a_foreign_file_is_refused() -> None:
    model = exported(random_network(conv(8), *head()))
    del model.metadata_props[:]
    with pytest.raises(ModelError, match=r"theirs.onnx: does not say what it is"):
        load_exported(model.SerializeToString(), "theirs.onnx")


@pytest.mark.parametrize("output", ["raw", "detections"])
def test_only_boxes_can_be_evaluated(output: str) -> None:
    model: onnx.ModelProto = exported(random_network(conv(8), *head()), output=output)
    file = load_exported(model.SerializeToString(), "heads.onnx")
    with pytest.raises(ModelError, match=f"heads.onnx: gives {output}; only a file with output boxes"):
        file.require_boxes("heads.onnx")
