"""A cfg and weights made by Darknet itself, on a photograph."""

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from yolo_dist.darknet.cfg import read_cfg
from yolo_dist.darknet.heads import decode_heads
from yolo_dist.darknet.network import Network
from yolo_dist.darknet.shapes import count_weight_floats
from yolo_dist.darknet.weights import load_weights, read_weights, weights_bytes


@pytest.fixture(scope="module")
def network(shared_data: Path) -> Network:
    network = Network(read_cfg(shared_data / "weights" / "yolo-fastest-1.1.cfg"))
    load_weights(network, shared_data / "weights" / "yolo-fastest-1.1.weights")
    return network.eval()


def test_the_weights_fit_exactly_and_are_written_back_byte_for_byte(network: Network, shared_data: Path) -> None:
    path = shared_data / "weights" / "yolo-fastest-1.1.weights"
    assert len(read_weights(path).floats) == count_weight_floats(network.cfg)
    assert weights_bytes(network)[20:] == path.read_bytes()[20:]


PERSON_XYXY = (354.88, 91.69, 517.75, 470.29)
"""The largest annotated person of image 5001 of COCO's val2017, in pixels."""


def test_it_finds_the_largest_person_of_a_photograph_where_it_stands(network: Network, shared_data: Path) -> None:
    image = cv2.imread(str(shared_data / "coco" / "val2017" / "000000005001.jpg"))
    assert image is not None
    scale = 320 / max(image.shape[:2])
    small = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    canvas = np.full((320, 320, 3), 114, np.uint8)
    canvas[: small.shape[0], : small.shape[1]] = small
    images = torch.from_numpy(canvas[..., ::-1].copy()).permute(2, 0, 1)[None].float() / 255
    with torch.no_grad():
        rows = decode_heads(network.heads, network(images))[0]
    scores = rows[:, 5:] * rows[:, 4:5]
    best = int(scores.max(1).values.argmax())
    assert int(scores[best].argmax()) == 0
    assert scores[best, 0] > 0.5
    assert overlap((rows[best, :4] / scale).tolist(), PERSON_XYXY) > 0.6


def overlap(first: Sequence[float], second: Sequence[float]) -> float:
    """Intersection over union of two xyxy boxes."""
    width = min(first[2], second[2]) - max(first[0], second[0])
    height = min(first[3], second[3]) - max(first[1], second[1])
    areas = sum((box[2] - box[0]) * (box[3] - box[1]) for box in (first, second))
    intersection = max(0.0, width) * max(0.0, height)
    return intersection / (areas - intersection)
