"""The loss on calibration images, put together by hand from the files."""

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from tiny_mixture import open_mixture, write_sources
from tiny_training import SIZE, scenes, tiny_network

from yolo_dist.data.shards import ShardSet
from yolo_dist.train.calibration import calibration_losses
from yolo_dist.train.loss import DetectionLoss, Loss, LossConfig
from yolo_dist.train.targets import assign_all


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> ShardSet:
    return scenes(tmp_path_factory.mktemp("scenes"), images=5)


def test_each_loss_is_that_of_one_image_as_it_lies_in_the_shards(shards: ShardSet) -> None:
    network = tiny_network().eval()
    for sample, loss in zip(shards, calibration_losses(shards, SIZE, 5), strict=True):
        picture = cv2.imdecode(np.frombuffer(sample.image, np.uint8), cv2.IMREAD_COLOR)
        assert picture is not None
        pixels = torch.from_numpy(picture[..., ::-1].copy()).permute(2, 0, 1)[None] / 255
        boxes, labels = torch.tensor(sample.boxes.xyxy.tolist()), torch.tensor(sample.boxes.labels.tolist())
        matches = assign_all(network.heads, SIZE, boxes, labels, torch.zeros_like(labels))
        expected = DetectionLoss(network, LossConfig())(network(pixels), matches, 1, iou_share=1.0).total
        torch.testing.assert_close(loss(network), expected)


def test_there_are_as_many_losses_as_images_asked_for_or_there(shards: ShardSet) -> None:
    assert [len(list(calibration_losses(shards, SIZE, count))) for count in (1, 3, 5, 64)] == [1, 3, 5, 5]


def test_nothing_is_read_before_a_loss_is_asked_for(shards: ShardSet, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: object) -> None:
        raise AssertionError("an image was read")

    monkeypatch.setattr(ShardSet, "__getitem__", never)
    calibration_losses(shards, SIZE, 5)
    with pytest.raises(AssertionError, match="was read"):
        next(calibration_losses(shards, SIZE, 5))


def test_the_loss_can_be_differentiated_for_every_gamma(shards: ShardSet) -> None:
    network = tiny_network().eval()
    (loss,) = calibration_losses(shards, SIZE, 1)
    loss(network).backward()
    gammas = [parameter for name, parameter in network.named_parameters() if name.endswith("norm.weight")]
    assert len(gammas) >= 4
    assert all(gamma.grad is not None and bool(gamma.grad.abs().sum() > 0) for gamma in gammas)


def test_images_of_a_mixture_come_by_weight_and_say_what_is_labelled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_sources(tmp_path)
    seen: list[tuple[bool, ...]] = []
    judge = DetectionLoss.__call__

    def watched(self: DetectionLoss, *arguments: Any, **options: Any) -> Loss:
        seen.append(tuple(options["known"][0].tolist()))
        return judge(self, *arguments, **options)

    monkeypatch.setattr(DetectionLoss, "__call__", watched)
    network = tiny_network().eval()
    for loss in calibration_losses(open_mixture(tmp_path, weights=(0.75, 0.25)), SIZE, 8):
        loss(network)
    assert seen.count((True, True, False)) == 6
    assert seen.count((False, True, True)) == 2
