"""A loss that is no number: the step that had it first is named, and its batch lies there to be looked at."""

import json
from pathlib import Path
from typing import Any

import cv2
import pytest
import torch
from tiny_training import SIZE, scenes, training, without_batch_norm
from torch import Tensor
from upath import UPath

from yolo_dist.data.loader import Batch
from yolo_dist.data.shards import ShardSet
from yolo_dist.errors import NonFiniteLoss
from yolo_dist.train.failed_batch import failed_batch_saved
from yolo_dist.train.loop import Trainer
from yolo_dist.train.loss_guard import CHECK_EVERY, LossGuard
from yolo_dist.train.workers import Workers

NAMES = ("box", "objectness", "class")


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> ShardSet:
    return scenes(tmp_path_factory.mktemp("scenes"), images=8)


class Poisoned(Trainer):
    """Training in which the image of one id gives a loss that is no number."""

    poison = ""

    def _train_batch(self, step: int, batch: Batch) -> Tensor:
        terms = super()._train_batch(step, batch)
        return terms * torch.inf if self.poison in batch.image_ids else terms


def poisoned(shards: ShardSet, step: int, workers: Workers | None = None, **config: Any) -> Poisoned:
    """Training in which batch `step` of the second epoch is the first bad one, by its last image."""
    usual = {"batch_size": 2, "nominal_batch": 2, "epochs": 3, "augment": {"mosaic": 0.5}}
    trainer = Poisoned(without_batch_norm(), shards, training(**usual | config), SIZE, workers, threads=0)
    trainer.run_epoch()
    trainer.poison = trainer.global_batch(step).image_ids[-1]
    return trainer


def fail(trainer: Trainer, folder: Path) -> str:
    """What the error says after an epoch in which a batch is bad."""
    with pytest.raises(NonFiniteLoss) as caught, failed_batch_saved(trainer, UPath(folder)):
        trainer.run_epoch()
    return str(caught.value)


@pytest.mark.parametrize("bad", [0, 1, CHECK_EVERY - 1, CHECK_EVERY, CHECK_EVERY + 1, 44])
def test_the_guard_names_the_first_bad_step_wherever_it_checks(bad: int) -> None:
    guard = LossGuard(NAMES, 4, Workers())
    with pytest.raises(NonFiniteLoss, match=rf"epoch 5, step {bad + 1} \(box 1, objectness nan, class 2\)") as caught:
        watch_an_epoch(guard, bad)
    assert caught.value.step == bad


def watch_an_epoch(guard: LossGuard, bad: int) -> None:
    for step in range(45):
        guard.watch(step, torch.tensor([1.0, torch.nan if step >= bad else 3.0, 2.0]))
    guard.check()


def test_the_guard_is_content_with_numbers() -> None:
    guard = LossGuard(NAMES, 0, Workers())
    for step in range(45):
        guard.watch(step, torch.full((3,), 1e30))
    guard.check()
    guard.check()


@pytest.mark.parametrize("step", [0, 2])
def test_the_batch_that_ended_a_training_lies_there_as_the_network_saw_it(
    step: int, shards: ShardSet, tmp_path: Path
) -> None:
    trainer = poisoned(shards, step)
    expected = trainer.global_batch(step)
    message = fail(trainer, tmp_path)

    place = tmp_path / f"epoch-2-step-{step + 1}"
    assert message.endswith(f"the batch is in {place}")
    record = json.loads((place / "batch.json").read_text())
    assert (record["epoch"], record["step"], record["loss"]["box"]) == (2, step + 1, "inf")
    assert list(record["batches"]) == [f"step {step + 1}", f"step {step}"][: step + 1]
    entries = record["batches"][f"step {step + 1}"]
    assert [entry["image_id"] for entry in entries] == expected.image_ids
    assert trainer.poison in expected.image_ids
    for number, entry in enumerate(entries):
        pixels = cv2.imread(str(place / entry["file"]), cv2.IMREAD_COLOR_RGB)
        assert pixels is not None
        assert torch.equal(torch.from_numpy(pixels).permute(2, 0, 1), expected.images[number])
        own = expected.image_index == number
        assert [box["xyxy"] for box in entry["boxes"]] == expected.boxes[own].tolist()
        assert [shards.classes.index(box["label"]) for box in entry["boxes"]] == expected.labels[own].tolist()


def test_a_batch_of_another_size_is_saved_in_that_size(shards: ShardSet, tmp_path: Path) -> None:
    trainer = poisoned(shards, 1, multi_scale=(2, 2))
    fail(trainer, tmp_path)
    (file,) = tmp_path.glob("*/step-2-000.png")
    image = cv2.imread(str(file))
    assert image is not None
    assert image.shape == (128, 128, 3)


def test_the_batch_is_that_of_the_whole_group(shards: ShardSet, tmp_path: Path, group_of_one: None) -> None:
    trainer = poisoned(shards, 1, Workers(0, 2), batch_size=4, nominal_batch=4)
    trainer.poison = next(iter(trainer.loader.batches(1, 1))).image_ids[0]
    fail(trainer, tmp_path)
    record = json.loads((tmp_path / "epoch-2-step-2" / "batch.json").read_text())
    assert len(record["batches"]["step 2"]) == 4


def test_weights_that_the_last_step_ruins_leave_the_last_batch(shards: ShardSet, tmp_path: Path) -> None:
    config = training(epochs=1, batch_size=8, optimizer={"learning_rate": 1e38, "weight_decay": 100})
    message = fail(Trainer(without_batch_norm(), shards, config, SIZE), tmp_path)
    assert "weights are not finite after epoch 1" in message
    assert len(list(tmp_path.glob("epoch-1-step-1/*.png"))) == 8


def test_a_full_disk_does_not_hide_what_happened(shards: ShardSet, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    message = fail(poisoned(shards, 1), tmp_path / "file")
    assert message.startswith("the loss is not finite at epoch 2, step 2")
    assert "could not be saved" in message
