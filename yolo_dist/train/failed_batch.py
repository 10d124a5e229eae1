"""The batch that ended a training, left for inspection: what the network saw, and what it was told is there."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import torch
from upath import UPath

from yolo_dist.data.loader import Batch
from yolo_dist.errors import NonFiniteLoss, YoloDistError
from yolo_dist.storage import publish_folder
from yolo_dist.train.loop import Trainer
from yolo_dist.train.loss_guard import plain

BATCH_FILE = "batch.json"


@contextmanager
def failed_batch_saved(trainer: Trainer, folder: UPath) -> Iterator[None]:
    """Where the block ends because a loss is no number, leave the batch in a folder of its own below `folder`.

    `batch.json` has epoch, step, loss terms, and for each image its id, its file and its boxes in the network's input;
    beside it lie the images, augmented. The batch before is there as well: by its step the weights became what they
    were. All is that of the whole group, whichever of its workers had the image.

    Raises:
        NonFiniteLoss: that of the block, and where the batch is.
    """
    try:
        yield
    except NonFiniteLoss as error:
        if error.step is None:
            raise
        place = folder / f"epoch-{trainer.epoch + 1}-step-{error.step + 1}"
        saved = f"the batch is in {place}"
        if trainer.workers.first:
            try:
                _save(trainer, error.step, error.loss, place)
            except (OSError, YoloDistError) as problem:
                saved = f"the batch could not be saved in {place} ({problem})"
        trainer.workers.sum(torch.zeros(1, device=trainer.device))  # the first worker that leaves ends all others
        raise NonFiniteLoss(f"{error}; {saved}", error.step, error.loss) from None


def _save(trainer: Trainer, step: int, loss: dict[str, float], place: UPath) -> None:
    classes = trainer.loader.shards.classes
    with publish_folder(place, last=BATCH_FILE) as folder:
        batches = {
            f"step {one + 1}": _write_images(trainer.global_batch(one), classes, folder, f"step-{one + 1}")
            for one in (step, step - 1)
            if one >= 0
        }
        record = {"epoch": trainer.epoch + 1, "step": step + 1, "loss": plain(loss), "batches": batches}
        (folder / BATCH_FILE).write_text(json.dumps(record, indent=1))


def _write_images(batch: Batch, classes: tuple[str, ...], folder: Path, prefix: str) -> list[dict[str, Any]]:
    """Write a batch's images as PNG; what `batch.json` says of them."""
    entries = []
    for number, (image_id, image) in enumerate(zip(batch.image_ids, batch.images, strict=True)):
        name = f"{prefix}-{number:03d}.png"
        pixels = cv2.cvtColor(image.permute(1, 2, 0).contiguous().numpy(), cv2.COLOR_RGB2BGR)
        (folder / name).write_bytes(cv2.imencode(".png", pixels)[1].tobytes())
        own = batch.image_index == number
        boxes = [
            {"label": classes[label], "xyxy": xyxy}
            for label, xyxy in zip(batch.labels[own].tolist(), batch.boxes[own].tolist(), strict=True)
        ]
        entries.append({"image_id": image_id, "file": name, "boxes": boxes})
    return entries
