"""Evaluation of a mixture: each class on the images of those who label it, each dataset by itself."""

import contextlib
import io
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import torch
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from upath import UPath

from yolo_dist.darknet.network import Network, initialize
from yolo_dist.darknet.zoo import zoo_cfg
from yolo_dist.data.annotations import Boxes
from yolo_dist.data.image import Letterbox
from yolo_dist.data.mixture import Mixture
from yolo_dist.data.shards import open_split
from yolo_dist.evaluate import evaluator
from yolo_dist.evaluate.evaluator import Evaluation, EvaluationConfig, evaluate, ground_truth
from yolo_dist.evaluate.inference import Thresholds, find_objects, inference
from yolo_dist.evaluate.metrics import GroundTruth, Metrics, coco_metrics
from yolo_dist.evaluate.nms import Detections
from yolo_dist.evaluate.samples import EVALUATION_FILE, save_evaluation

SIZE = (64, 64)
SQUARE, DISC, TRIANGLE = range(3)
STREET, HOME = range(6), range(6, 16)


@pytest.fixture(scope="module")
def network() -> Network:
    network = Network(zoo_cfg("yolov3-tiny", classes=3, width=0.125))
    initialize(network, seed=0)
    return network


def evaluated(network: Network, mixture: Mixture, config: EvaluationConfig | None = None) -> Evaluation:
    evaluation = evaluate(network, mixture, SIZE, config)
    assert evaluation is not None
    return evaluation


def guesses(mixture: Mixture, seed: int) -> list[Detections]:
    """Detections near the objects and elsewhere, of classes that the image's source labels."""
    random = np.random.default_rng(seed)
    found = []
    for number, sample in enumerate(mixture):
        near = sample.boxes.xyxy + random.normal(0, 2, sample.boxes.xyxy.shape)
        corner = random.uniform(0, 40, (3, 2))
        xyxy = np.concatenate([near, np.hstack([corner, corner + random.uniform(8, 24, (3, 2))])]).astype(np.float32)
        labelled = np.flatnonzero(mixture.known[int(number >= len(STREET))])
        labels = np.concatenate([sample.boxes.labels, random.choice(labelled, 3)]).astype(np.int32)
        scores = random.random(len(xyxy)).astype(np.float32)
        best = np.argsort(-scores)
        found.append(Detections(xyxy[best], scores[best], labels[best]))
    return found


def reference(mixture: Mixture, found: Sequence[Detections], images: Iterable[int], label: int) -> float:
    """Average precision of one class on some of the images, by the protocol's own implementation."""
    images = list(images)
    objects: list[dict[str, Any]] = []
    rows: list[tuple[float, ...]] = []
    for number in images:
        for (left, top, right, bottom), own in zip(*_columns(mixture[number].boxes), strict=True):
            box = {"bbox": [left, top, right - left, bottom - top], "area": (right - left) * (bottom - top)}
            objects.append({"id": len(objects) + 1, "image_id": number, "category_id": own + 1, "iscrowd": 0, **box})
        for (left, top, right, bottom), own, score in zip(
            *_columns(found[number]), found[number].scores.tolist(), strict=True
        ):
            rows.append((number, left, top, right - left, bottom - top, score, own + 1))
    coco = COCO()
    categories = [{"id": number + 1} for number in range(3)]
    coco.dataset = {"info": {}, "images": [{"id": n} for n in images], "categories": categories, "annotations": objects}
    with contextlib.redirect_stdout(io.StringIO()):
        coco.createIndex()
        evaluation = COCOeval(coco, coco.loadRes(np.array(rows)), "bbox")
        evaluation.params.catIds = [label + 1]
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return float(evaluation.stats[0])


def _columns(boxes: Boxes | Detections) -> tuple[list[list[float]], list[int]]:
    return boxes.xyxy.astype(np.float64).tolist(), boxes.labels.tolist()


@pytest.mark.parametrize("seed", range(3))
def test_every_class_is_measured_on_the_images_of_those_who_label_it(
    mixture: Mixture, network: Network, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = guesses(mixture, seed)
    monkeypatch.setattr(evaluator, "predict", lambda *_, **__: list(enumerate(found)))
    metrics = evaluated(network, mixture).metrics
    joint = {
        "square": reference(mixture, found, STREET, SQUARE),
        "disc": reference(mixture, found, [*STREET, *HOME], DISC),
        "triangle": reference(mixture, found, HOME, TRIANGLE),
    }
    assert {name: one.map for name, one in metrics.per_class.items()} == pytest.approx(joint, abs=1e-12)
    assert metrics.map == pytest.approx(np.mean(list(joint.values())))
    assert metrics.images == 16
    for name, images, labels in (
        ("street", STREET, {"square": SQUARE, "disc": DISC}),
        ("home", HOME, {"disc": DISC, "triangle": TRIANGLE}),
    ):
        own, expected = metrics.sources[name], {key: reference(mixture, found, images, n) for key, n in labels.items()}
        assert {key: one.map for key, one in own.per_class.items()} == pytest.approx(expected, abs=1e-12)
        assert own.map == pytest.approx(np.mean(list(expected.values())))
        assert own.images == len(images)
        assert own.sources == {}


def test_nothing_is_found_that_an_images_source_does_not_label(mixture: Mixture, network: Network) -> None:
    found = evaluated(network, mixture).detections
    assert {int(label) for number in STREET for label in found[number].labels} == {SQUARE, DISC}
    assert {int(label) for number in HOME for label in found[number].labels} == {DISC, TRIANGLE}


def test_the_classes_to_find_leave_the_others_out_and_change_nothing_else(network: Network) -> None:
    images = torch.randint(256, (2, 3, 64, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    whole = [Letterbox(1.0, 0, 0, *SIZE)] * 2
    thresholds = Thresholds(confidence=0.001, max_detections=10_000, multi_label=True)
    classes = torch.tensor([[True, False, True], [False, True, True]])
    with inference(network):
        everything = find_objects(network, images, whole, thresholds)
        some = find_objects(network, images, whole, thresholds, classes=classes)
    for found, others, wanted in zip(some, everything, classes.numpy(), strict=True):
        expected = others.select(wanted[others.labels])
        assert 0 < len(expected) < len(others)
        assert np.array_equal(found.labels, expected.labels)
        assert np.array_equal(found.scores, expected.scores)
        assert np.array_equal(found.xyxy, expected.xyxy)


@pytest.mark.parametrize(("configured", "limits"), [(None, [100, 50]), (7, [7, 7])])
def test_each_dataset_counts_as_many_detections_as_its_card_says(
    mixture: Mixture, network: Network, configured: int | None, limits: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []

    def noting(truth: list[GroundTruth], found: list[Detections], classes: tuple[str, ...], limit: int) -> Metrics:
        seen.append(limit)
        return coco_metrics(truth, found, classes, limit)

    monkeypatch.setattr("yolo_dist.evaluate.by_source.coco_metrics", noting)
    evaluated(network, mixture, EvaluationConfig(max_detections=configured))
    assert seen == limits


def test_the_file_of_one_dataset_says_nothing_of_sources(network: Network, tmp_path: Path) -> None:
    """As it was before there were mixtures, so that either version reads the other's."""
    tiny.write_shards(tmp_path)
    shards = open_split(tmp_path / "shards", "val")
    evaluation = evaluate(network, shards, SIZE)
    assert evaluation is not None
    save_evaluation(evaluation, shards, UPath(tmp_path / "out"))
    written = (tmp_path / "out" / EVALUATION_FILE).read_text()
    assert "sources" not in json.loads(written)
    assert Metrics.model_validate_json(written) == evaluation.metrics


def test_the_file_of_a_mixture_is_read_as_it_was_written(mixture: Mixture, network: Network, tmp_path: Path) -> None:
    evaluation = evaluated(network, mixture)
    save_evaluation(evaluation, mixture, UPath(tmp_path / "out"))
    assert Metrics.model_validate_json((tmp_path / "out" / EVALUATION_FILE).read_text()) == evaluation.metrics


def test_the_truth_has_joint_labels(mixture: Mixture) -> None:
    assert {image.image_id.partition("/")[0] for image in ground_truth(mixture)} == {"street", "home"}
    labels = np.concatenate([image.boxes.labels for image in ground_truth(mixture)])
    assert set(labels.tolist()) == {SQUARE, DISC, TRIANGLE}
