"""Non-maximum suppression against a scalar one that follows the definition word by word."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from yolo_dist.evaluate import nms
from yolo_dist.evaluate.nms import Detections, non_maximum_suppression

Candidate = tuple[float, list[float], int]


def scalar_iou(a: list[float], b: list[float]) -> float:
    width = max(0.0, min(a[2], b[2]) - max(a[0], b[0]))
    height = max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
    union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - width * height
    return width * height / union if union else 0.0


def scalar_nms(image: Tensor, confidence: float, iou: float, limit: int, multi_label: bool) -> list[Candidate]:
    candidates: list[Candidate] = []
    for row in image:
        scores = [float(row[4] * probability) for probability in row[5:]]
        labels = range(len(scores)) if multi_label else [scores.index(max(scores))]
        candidates += [(scores[label], row[:4].tolist(), label) for label in labels if scores[label] > confidence]
    kept: list[Candidate] = []
    for score, box, label in sorted(candidates, key=lambda candidate: -candidate[0]):
        if all(label != other or scalar_iou(box, rival) <= iou for _, rival, other in kept):
            kept.append((score, box, label))
    return kept[:limit]


def as_candidates(found: Detections) -> list[Candidate]:
    return list(zip(found.scores.tolist(), found.xyxy.tolist(), found.labels.tolist(), strict=True))


def scene(seed: int, boxes: int, classes: int, extent: int = 40) -> Tensor:
    """Boxes with whole-number corners in a small area, so that they overlap and overlaps are exact; [boxes, 5 + C]."""
    random = np.random.default_rng(seed)
    corner, size = random.integers(0, extent, (boxes, 2)), random.integers(1, 20, (boxes, 2))
    # Few distinct probabilities, so that scores are often equal.
    probabilities = random.integers(0, 9, (boxes, 1 + classes)) / 8
    return torch.from_numpy(np.hstack([corner, corner + size, probabilities]).astype(np.float32))


@settings(deadline=None, max_examples=60)
@given(
    seed=st.integers(0, 2**32 - 1),
    boxes=st.integers(0, 60),
    classes=st.integers(1, 4),
    iou=st.sampled_from([0.0, 0.3, 0.45, 0.6, 1.0]),
    confidence=st.sampled_from([0.0, 0.1, 0.5]),
    limit=st.sampled_from([1, 10, 300]),
    multi_label=st.booleans(),
)
def test_suppression_is_the_scalar_definition(
    seed: int, boxes: int, classes: int, iou: float, confidence: float, limit: int, multi_label: bool
) -> None:
    image = scene(seed, boxes, classes)
    (found,) = non_maximum_suppression(image[None], confidence, iou, limit, multi_label)
    assert as_candidates(found) == scalar_nms(image, confidence, iou, limit, multi_label)


@pytest.mark.parametrize("boxes", [nms.BLOCK - 1, nms.BLOCK, nms.BLOCK + 1, 3 * nms.BLOCK])
def test_blocks_leave_no_seam(boxes: int) -> None:
    image = scene(boxes, boxes, classes=1, extent=300)
    (found,) = non_maximum_suppression(image[None], 0.0, 0.5, 1000)
    assert as_candidates(found) == scalar_nms(image, 0.0, 0.5, 1000, True)


def test_images_of_a_batch_do_not_touch_each_other() -> None:
    batch = torch.stack([scene(seed, 30, 3) for seed in range(4)])
    together = non_maximum_suppression(batch, 0.1, 0.5)
    alone = [non_maximum_suppression(image[None], 0.1, 0.5)[0] for image in batch]
    assert [as_candidates(found) for found in together] == [as_candidates(found) for found in alone]


@pytest.mark.parametrize(("multi_label", "labels"), [(True, [1, 0]), (False, [1])])
def test_a_box_counts_for_every_class_only_if_multi_label(multi_label: bool, labels: list[int]) -> None:
    image = torch.tensor([[0.0, 0, 10, 10, 1.0, 0.5, 0.75]])
    (found,) = non_maximum_suppression(image[None], 0.1, 0.5, multi_label=multi_label)
    assert found.labels.tolist() == labels


@pytest.mark.parametrize("broken", [float("inf"), float("-inf"), float("nan")])
def test_boxes_of_a_diverged_network_are_dropped(broken: float) -> None:
    image = torch.tensor([[0.0, 0, broken, 10, 1.0, 1.0], [0, 0, 10, 10, 0.5, 1.0], [0, 0, 9, 9, broken, 1.0]])
    (found,) = non_maximum_suppression(image[None, :2], 0.1, 0.5)
    assert found.xyxy.tolist() == [[0, 0, 10, 10]]


def test_nothing_above_the_threshold_is_an_empty_set_of_the_right_types() -> None:
    (found,) = non_maximum_suppression(torch.zeros(1, 5, 8), 0.001, 0.6)
    assert found.xyxy.shape == (0, 4)
    assert [found.xyxy.dtype, found.scores.dtype, found.labels.dtype] == [np.float32, np.float32, np.int32]
