"""Metrics against the reference implementation of the COCO protocol, on random scenes, to the last bit."""

import contextlib
import io
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from yolo_dist.data.annotations import ANY_CLASS, Boxes
from yolo_dist.evaluate.coco import interpolated_precision
from yolo_dist.evaluate.metrics import GroundTruth, Metrics, coco_metrics
from yolo_dist.evaluate.nms import Detections
from yolo_dist.evaluate.operating_point import match

CLASSES = ("cell", "platelet", "never seen")


def boxes_around(random: np.random.Generator, count: int) -> NDArray[np.float32]:
    """Boxes from a few pixels to half of a 640-px image wide, so that all three size classes occur."""
    corner = random.uniform(0, 400, (count, 2))
    return np.hstack([corner, corner + np.exp(random.uniform(1, 5.7, (count, 2)))]).astype(np.float32)


def scene(random: np.random.Generator, crowded: bool) -> tuple[Boxes, Detections]:
    """An image's objects, and detections of which some are near an object and some are not."""
    objects, strays = int(random.integers(0, 8)), int(random.integers(0, 12))
    truth = Boxes(
        boxes_around(random, objects),
        random.integers(0, 2, objects).astype(np.int32),
        random.random(objects) < (0.3 if crowded else 0.0),
    )
    near = random.permutation(np.repeat(np.arange(objects), 2))
    jitter = random.normal(0, 0.08, (len(near), 4)) * np.tile(truth.xyxy[near, 2:] - truth.xyxy[near, :2], 2)
    return truth, Detections(
        np.vstack([truth.xyxy[near] + jitter, boxes_around(random, strays)]).astype(np.float32),
        # Coarse scores, so that ties within and between images are common.
        (random.integers(1, 20, len(near) + strays) / 20).astype(np.float32),
        np.hstack([truth.labels[near], random.integers(0, 2, strays)]).astype(np.int32),
    )


def dataset(seed: int, images: int, crowded: bool = True) -> tuple[list[GroundTruth], list[Detections]]:
    random = np.random.default_rng(seed)
    scenes = [scene(random, crowded) for _ in range(images)]
    return [GroundTruth(f"image-{i}", 640, 480, boxes) for i, (boxes, _) in enumerate(scenes)], [d for _, d in scenes]


def reference(truth: list[GroundTruth], detections: list[Detections]) -> COCOeval:
    """The reference implementation, run on the same boxes through its own formats."""
    annotations: list[dict[str, Any]] = []
    for number, image in enumerate(truth):
        for box, label, ignore in zip(image.boxes.xyxy, image.boxes.labels, image.boxes.ignore, strict=True):
            left, top, right, bottom = map(float, box)
            size = {"bbox": [left, top, right - left, bottom - top], "area": (right - left) * (bottom - top)}
            owner = {"id": len(annotations) + 1, "image_id": number, "category_id": int(label) + 1}
            annotations.append(owner | size | {"iscrowd": int(ignore)})
    results = [
        (number, left, top, right - left, bottom - top, score, label + 1)
        for number, found in enumerate(detections)
        for (left, top, right, bottom), score, label in zip(
            found.xyxy.astype(np.float64), found.scores.astype(np.float64), found.labels, strict=True
        )
    ]
    coco = COCO()
    coco.dataset = {
        "info": {},
        "images": [{"id": number} for number in range(len(truth))],
        "categories": [{"id": number + 1, "name": name} for number, name in enumerate(CLASSES)],
        "annotations": annotations,
    }
    with contextlib.redirect_stdout(io.StringIO()):
        coco.createIndex()
        evaluation = COCOeval(coco, coco.loadRes(np.array(results)), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation


def none_for_absent(statistic: float) -> float | None:
    return None if statistic == -1 else statistic


@settings(deadline=None, max_examples=25)
@given(seed=st.integers(0, 2**32 - 1), images=st.integers(4, 12), crowded=st.booleans())
def test_average_precisions_equal_the_reference_to_the_last_bit(seed: int, images: int, crowded: bool) -> None:
    truth, detections = dataset(seed, images, crowded)
    assume(any(len(found) for found in detections))
    evaluation = reference(truth, detections)
    ours = coco_metrics(truth, detections, CLASSES)

    assert [ours.map, ours.map50, ours.map75] == np.maximum(evaluation.stats[:3], 0).tolist()
    assert [ours.map_small, ours.map_medium, ours.map_large] == [none_for_absent(s) for s in evaluation.stats[3:6]]
    for number, name in enumerate(CLASSES):
        curve = evaluation.eval["precision"][0, :, number, 0, 2].tolist()
        assert ours.precision_recall.per_class.get(name, (-1.0,) * 101) == tuple(curve)


@pytest.mark.parametrize(("limit", "column"), [(1, 0), (10, 1), (100, 2)])
@pytest.mark.parametrize("images", [1, 3, 60])
def test_every_point_of_every_curve_equals_the_reference(images: int, limit: int, column: int) -> None:
    truth, detections = dataset(images, images)
    expected = reference(truth, detections).eval["precision"][..., column]
    ours = interpolated_precision([image.boxes for image in truth], detections, len(CLASSES), limit)
    assert np.array_equal(ours, expected)


def reference_operating_point(evaluation: COCOeval, objects: int) -> tuple[float, float, float]:
    """Best F1, its precision and recall, by trying every score on the reference's matches at IoU 0.5."""
    everything = evaluation.params.areaRng[0]
    images = [image for image in evaluation.evalImgs if image is not None and image["aRng"] == everything]
    rows = [
        (score, bool(matched))
        for image in images
        for score, matched, ignored in zip(image["dtScores"], image["dtMatches"][0], image["dtIgnore"][0], strict=True)
        if not ignored
    ]
    choices = []
    for threshold in {score for score, _ in rows}:
        chosen = [right for score, right in rows if score >= threshold]
        precision, recall = sum(chosen) / len(chosen), sum(chosen) / objects
        f1 = 2 * precision * recall / (precision + recall) if sum(chosen) else 0.0
        choices.append((round(f1, 12), threshold, precision, recall))
    f1, _, precision, recall = max(choices)
    return f1, precision, recall


@pytest.mark.parametrize("seed", range(12))
def test_best_f1_is_found_on_the_matches_of_the_reference(seed: int) -> None:
    truth, detections = dataset(seed, 8)
    objects = sum(int((~image.boxes.ignore).sum()) for image in truth)
    expected = reference_operating_point(reference(truth, detections), objects)
    ours = coco_metrics(truth, detections, CLASSES)
    assert (ours.f1, ours.precision, ours.recall) == pytest.approx(expected, abs=1e-9)
    assert 0 < ours.f1 < 1


def test_perfect_detections_score_one_everywhere() -> None:
    truth, _ = dataset(3, 6, crowded=False)
    found = [Detections(i.boxes.xyxy, np.full(len(i.boxes), 0.5, np.float32), i.boxes.labels) for i in truth]
    metrics = coco_metrics(truth, found, CLASSES)
    assert (metrics.map, metrics.map50, metrics.precision, metrics.recall, metrics.f1) == pytest.approx((1,) * 5)
    assert metrics.confidence == 0.5
    assert metrics.precision_recall.mean == pytest.approx((1.0,) * 101)


def test_a_class_without_objects_has_no_precision_and_does_not_count() -> None:
    truth, detections = dataset(1, 6)
    metrics = coco_metrics(truth, detections, CLASSES)
    absent = metrics.per_class["never seen"]
    assert (absent.map, absent.map50, absent.objects) == (None, None, 0)
    assert "never seen" not in metrics.precision_recall.per_class
    assert metrics.map == pytest.approx(np.mean([metrics.per_class[name].map for name in CLASSES[:2]]))


def box(*corners: float) -> NDArray[np.float32]:
    return np.array([corners], np.float32)


def test_detections_inside_an_ignored_box_are_no_mistakes() -> None:
    crowd = Boxes(box(0, 0, 100, 100), np.zeros(1, np.int32), np.ones(1, np.bool_))
    inside = Detections(box(10, 10, 30, 30), np.ones(1, np.float32), np.zeros(1, np.int32))
    right, counts = match(crowd, inside)
    assert (right.tolist(), counts.tolist()) == ([False], [False])


@pytest.mark.parametrize(("region", "precision"), [(ANY_CLASS, 1.0), (0, 0.5)])
def test_a_region_to_ignore_takes_detections_of_every_class(region: int, precision: float) -> None:
    corners = np.array([[0, 0, 100, 100], [200, 0, 250, 50]], np.float32)
    truth = Boxes(corners, np.array([region, 1], np.int32), np.array([True, False]))
    inside = np.array([[10, 10, 30, 30], [200, 0, 250, 50]], np.float32)
    found = Detections(inside, np.array([0.9, 0.8], np.float32), np.ones(2, np.int32))
    metrics = coco_metrics([GroundTruth("a", 640, 480, truth)], [found], ["other", "square"])
    assert metrics.precision == pytest.approx(precision)
    assert metrics.per_class["square"].map == pytest.approx(precision)


def test_a_region_to_ignore_equals_a_crowd_of_each_class_to_the_last_bit() -> None:
    truth, detections = dataset(seed=3, images=12)
    regions = [box(0, 0, 300, 200) for _ in truth]

    def with_regions(labels: list[int]) -> list[Boxes]:
        return [
            Boxes(
                np.vstack([image.boxes.xyxy, *([region] * len(labels))]),
                np.hstack([image.boxes.labels, np.array(labels, np.int32)]),
                np.hstack([image.boxes.ignore, np.ones(len(labels), np.bool_)]),
            )
            for image, region in zip(truth, regions, strict=True)
        ]

    one = interpolated_precision(with_regions([ANY_CLASS]), detections, len(CLASSES))
    each = interpolated_precision(with_regions([0, 1, 2]), detections, len(CLASSES))
    none = interpolated_precision(with_regions([]), detections, len(CLASSES))
    np.testing.assert_array_equal(one, each)
    assert not np.array_equal(one, none)


@pytest.mark.parametrize(("limit", "recall"), [(1, 1 / 3), (2, 2 / 3), (100, 1.0)])
def test_only_so_many_detections_of_an_image_count(limit: int, recall: float) -> None:
    corners = np.array([[0, 0, 50, 50], [100, 0, 150, 50], [200, 0, 250, 50]], np.float32)
    truth = [GroundTruth("a", 640, 480, Boxes(corners, np.zeros(3, np.int32), np.zeros(3, np.bool_)))]
    found = [Detections(corners, np.array([0.9, 0.8, 0.7], np.float32), np.zeros(3, np.int32))]
    assert coco_metrics(truth, found, ["square"], max_detections=limit).recall == pytest.approx(recall)


NOTHING = GroundTruth("empty", 640, 480, Boxes())
OBJECT = GroundTruth("one", 640, 480, Boxes(box(1, 2, 50, 60), np.zeros(1, np.int32), np.zeros(1, np.bool_)))
FOUND = Detections(box(1, 2, 50, 60), np.ones(1, np.float32), np.zeros(1, np.int32))


@pytest.mark.parametrize(
    ("truth", "detections", "map_all"),
    [
        pytest.param([], [], 0.0, id="no images"),
        pytest.param([NOTHING], [Detections()], 0.0, id="no objects, no detections"),
        pytest.param([NOTHING], [FOUND], 0.0, id="no objects, a detection"),
        pytest.param([OBJECT], [Detections()], 0.0, id="no detections"),
        pytest.param([NOTHING, OBJECT], [Detections(), FOUND], 1.0, id="an image without objects"),
    ],
)
def test_empty_sets_need_no_special_care(
    truth: list[GroundTruth], detections: list[Detections], map_all: float, capfd: pytest.CaptureFixture[str]
) -> None:
    metrics = coco_metrics(truth, detections, CLASSES)
    assert metrics.map == pytest.approx(map_all)
    assert metrics.map_large is None
    assert capfd.readouterr() == ("", "")
    assert Metrics.model_validate_json(metrics.model_dump_json()) == metrics
