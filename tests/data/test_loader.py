"""The loader: the same batches for any number of workers and threads, exact resume, clean ends."""

import threading
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from made_datasets import boxes_of, jpeg, raw_shards, scenes

from yolo_dist.data.annotations import Boxes
from yolo_dist.data.augment import AugmentConfig
from yolo_dist.data.image import decode_image, letterbox
from yolo_dist.data.loader import Batch, Loader, evaluation_batches
from yolo_dist.data.order import EpochOrder
from yolo_dist.data.shards import Sample, ShardSet
from yolo_dist.errors import ImageError

SIZE = (96, 64)
ALL_ON = AugmentConfig(mosaic=0.5, degrees=5, translate=0.1, scale=0.2)


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> ShardSet:
    return scenes(tmp_path_factory.mktemp("scenes"), images=21, width=64, height=96)


def signature(batches: list[Batch]) -> list[tuple[str, bytes, list[list[float]], list[int]]]:
    """All there is to an image, image by image, however they were batched."""
    return [
        (
            image_id,
            batch.images[number].numpy().tobytes(),
            batch.boxes[batch.image_index == number].tolist(),
            batch.labels[batch.image_index == number].tolist(),
        )
        for batch in batches
        for number, image_id in enumerate(batch.image_ids)
    ]


def test_an_image_without_augmentation_is_its_letterbox(shards: ShardSet) -> None:
    (batch,) = Loader(shards, SIZE, 21, shuffle=False).batches(0)
    for number, sample in enumerate(shards):
        expected, box = letterbox(decode_image(sample.image), SIZE)
        assert (batch.images[number].permute(1, 2, 0).numpy() == expected).all()
        here = batch.image_index == number
        np.testing.assert_array_equal(batch.boxes[here].numpy(), box.forward(sample.boxes.xyxy))
        assert batch.labels[here].tolist() == sample.boxes.labels.tolist()
        assert batch.letterboxes[number] == box
        assert batch.image_ids[number] == sample.image_id
    assert batch.samples.tolist() == list(range(21))


@pytest.mark.parametrize("mosaic", [0.0, 1.0])
@pytest.mark.parametrize("size", [(640, 480), (643, 481), (1285, 963)])
def test_boxes_stay_on_their_objects_when_large_jpegs_are_decoded_smaller(
    tmp_path: Path, size: tuple[int, int], mosaic: float
) -> None:
    width, height = size
    white = np.zeros((height, width, 3), np.uint8)
    white[height // 4 : height // 2, width // 3 : width // 2] = 255
    boxes = boxes_of((width // 3, height // 4, width // 2, height // 2))
    data = cv2.imencode(".jpg", white)[1].tobytes()
    shards = raw_shards(tmp_path, [Sample("large", data, width, height, boxes)])
    plain = AugmentConfig(mosaic=mosaic, flip=0, hue=0, saturation=0, value=0)
    (batch,) = Loader(shards, (160, 160), 1, augment=plain, seed=4).batches(0)
    pixels = batch.images[0, 0].numpy()
    drawn = np.zeros_like(pixels, bool)
    for left, top, right, bottom in batch.boxes.round().int().tolist():
        drawn[top:bottom, left:right] = True
    different = drawn ^ (pixels > 127)
    outline = 2 * (batch.boxes[:, 2:] - batch.boxes[:, :2]).sum()
    assert drawn.any()
    assert different.sum() < outline  # no more than a pixel off on every side


def test_tensors_have_the_promised_types_and_layout(shards: ShardSet) -> None:
    batch = next(iter(Loader(shards, SIZE, 8, augment=ALL_ON).batches(0)))
    assert batch.images.shape == (8, 3, 64, 96)
    assert batch.images.dtype == torch.uint8
    assert batch.images.is_contiguous(memory_format=torch.channels_last)
    assert batch.boxes.dtype == torch.float32
    assert batch.boxes.shape == (len(batch.labels), 4)
    assert {batch.labels.dtype, batch.image_index.dtype, batch.samples.dtype} == {torch.int64}
    assert len(batch) == 8
    moved = batch.to("cpu")
    assert torch.equal(moved.images, batch.images)
    assert moved.image_ids == batch.image_ids


@pytest.mark.parametrize("augment", [None, ALL_ON], ids=["plain", "augmented"])
@pytest.mark.parametrize(("world_size", "threads"), [(1, 0), (1, 3), (2, 1), (3, 2), (7, 1)])
def test_batches_do_not_depend_on_workers_or_threads(
    shards: ShardSet, augment: AugmentConfig | None, world_size: int, threads: int
) -> None:
    def loader(rank: int, world_size: int, threads: int) -> Loader:
        return Loader(shards, SIZE, 8, augment=augment, seed=3, rank=rank, world_size=world_size, threads=threads)

    together = list(loader(0, 1, 1).batches(2))
    apart = [list(loader(rank, world_size, threads).batches(2)) for rank in range(world_size)]
    assert {len(batches) for batches in apart} == {len(together)} == {3}
    for step, whole in enumerate(together):
        assert signature([whole]) == signature([batches[step] for batches in apart])


def test_a_short_last_batch_leaves_some_workers_without_images(shards: ShardSet) -> None:
    lengths = [
        [len(batch) for batch in Loader(shards, SIZE, 20, rank=rank, world_size=4).batches(0)] for rank in range(4)
    ]
    assert lengths == [[5, 0], [5, 0], [5, 0], [5, 1]]


@pytest.mark.parametrize("start", [0, 1, 2, 3])
def test_resume_gives_the_batches_that_were_left(shards: ShardSet, start: int) -> None:
    loader = Loader(shards, SIZE, 8, augment=ALL_ON, seed=1)
    assert signature(list(loader.batches(4))[start:]) == signature(list(loader.batches(4, start_step=start)))


def test_epochs_differ_in_order_and_augmentation(shards: ShardSet) -> None:
    loader = Loader(shards, SIZE, 21, augment=ALL_ON)
    (first,), (second,) = loader.batches(0), loader.batches(1)
    assert first.image_ids != second.image_ids
    assert sorted(first.image_ids) == sorted(second.image_ids)
    assert {image for _, image, _, _ in signature([first])}.isdisjoint(image for _, image, _, _ in signature([second]))


def test_boxes_stay_within_the_input(shards: ShardSet) -> None:
    for batch in Loader(shards, SIZE, 8, augment=ALL_ON).batches(0):
        assert (batch.boxes >= 0).all()
        assert (batch.boxes <= torch.tensor([96, 64, 96, 64])).all()
        assert (batch.boxes[:, 2:] > batch.boxes[:, :2]).all()


def test_mosaic_brings_more_objects_and_an_identity_letterbox(shards: ShardSet) -> None:
    objects = {}
    for mosaic in (0.0, 1.0):
        config = AugmentConfig(mosaic=mosaic)
        batches = list(Loader(shards, SIZE, 21, augment=config).batches(0))
        objects[mosaic] = sum(len(batch.labels) for batch in batches)
    assert objects[1.0] > 1.3 * objects[0.0]
    box = batches[0].letterboxes[0]
    assert (box.scale, box.pad_left, box.pad_top, box.width, box.height) == (1, 0, 0, *SIZE)


def test_image_sizes_can_follow_a_schedule_of_seed_epoch_and_step(shards: ShardSet) -> None:
    loader = Loader(shards, SIZE, 8, seed=5)
    sizes = [(64, 32), (96, 96), (32, 64)]

    def schedule(seed: int, epoch: int, step: int) -> tuple[int, int]:
        assert (seed, epoch) == (5, 2)
        return sizes[step]

    assert [tuple(batch.images.shape[2:]) for batch in loader.batches(2, image_size=schedule)] == [
        (32, 64),
        (96, 96),
        (64, 32),
    ]
    assert [tuple(batch.images.shape[2:]) for batch in loader.batches(2, 2, image_size=schedule)] == [(64, 32)]
    assert next(loader.batches(2, image_size=(128, 32))).images.shape[2:] == (32, 128)


@pytest.mark.parametrize("world_size", [1, 2, 3, 5])
def test_evaluation_batches_are_whole_fixed_and_cover_every_image_once(shards: ShardSet, world_size: int) -> None:
    alone = list(evaluation_batches(shards, SIZE, 4))
    assert [len(batch) for batch in alone] == [4, 4, 4, 4, 4, 1]
    dealt = [list(evaluation_batches(shards, SIZE, 4, rank, world_size)) for rank in range(world_size)]
    for step, whole in enumerate(alone):
        assert signature([whole]) == signature([dealt[step % world_size][step // world_size]])


def test_ignored_boxes_are_left_out(tmp_path: Path) -> None:
    xyxy = np.array([[0, 0, 30, 30], [5, 5, 20, 20]], np.float32)
    boxes = Boxes(xyxy, np.array([0, 1], np.int32), np.array([True, False]))
    shards = raw_shards(tmp_path, [Sample("a", jpeg(60, 40), 60, 40, boxes)])
    (batch,) = Loader(shards, (64, 64), 1).batches(0)
    assert (batch.labels.tolist(), batch.image_index.tolist()) == ([1], [0])


def test_dropping_an_epoch_in_the_middle_ends_its_threads(shards: ShardSet) -> None:
    before = threading.active_count()
    batches = Loader(shards, SIZE, 4, threads=3).batches(0)
    next(batches)
    assert threading.active_count() > before
    del batches
    assert threading.active_count() == before


def test_only_a_few_batches_are_made_ahead(shards: ShardSet, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[int] = []
    original = EpochOrder.batch

    def counted(order: EpochOrder, step: int) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
        made.append(step)
        return original(order, step)

    monkeypatch.setattr(EpochOrder, "batch", counted)
    batches = Loader(shards, SIZE, 1, threads=2).batches(0)
    next(batches)
    assert len(made) <= 3
    batches.close()  # type: ignore[attr-defined]


def test_an_image_that_cannot_be_decoded_is_named(tmp_path: Path) -> None:
    samples = [Sample("a", b"not an image", 60, 40, Boxes()), Sample("b", jpeg(60, 40), 60, 40, Boxes())]
    with pytest.raises(ImageError, match=r"shard-00000\.arrow: image a: cannot be decoded"):
        list(Loader(raw_shards(tmp_path, samples), SIZE, 2).batches(0))
