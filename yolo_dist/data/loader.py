"""Batches for training and evaluation, prefetched by a few threads (decoding releases the interpreter's lock)."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import islice

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from yolo_dist.data.annotations import Boxes
from yolo_dist.data.augment import AugmentConfig, augment
from yolo_dist.data.balanced_order import BalancedOrder
from yolo_dist.data.image import Letterbox, Pixels, decode_image, letterbox_into, plan_letterbox, reduction
from yolo_dist.data.mixture import Images, Mixture, known_classes, same_source
from yolo_dist.data.mixture_order import MixtureOrder
from yolo_dist.data.mosaic import mosaic_into
from yolo_dist.data.order import EpochOrder, Order, sample_seed, share_of
from yolo_dist.data.shards import Sample

Size = tuple[int, int]
SizeSchedule = Callable[[int, int, int], Size]
"""(seed, epoch, step) → (width, height): multi-scale training that resumes exactly."""
Prefetch = Callable[[Iterable[int]], None]
"""Told which shards are needed next."""

FEW = 8
"""Images that pass through a network together where only a few are looked at."""


@dataclass(frozen=True)
class Batch:
    """Images of the network's input size and the objects on them; ignored boxes are left out.

    Attributes:
        images: uint8 RGB [B, 3, H, W], channels_last in memory.
        boxes: xyxy in input pixels, float32 [M, 4].
        labels: int64 [M].
        image_index: which image of this batch each box is on, int64 [M].
        samples: numbers of the images in the shard set, int64 [B].
        image_ids: as the dataset names them.
        letterboxes: how each image came into the input; the identity for a mosaic.
        known: which classes each image's source labels, bool [B, classes]; None where every source labels all.
    """

    images: torch.Tensor
    boxes: torch.Tensor
    labels: torch.Tensor
    image_index: torch.Tensor
    samples: torch.Tensor
    image_ids: list[str]
    letterboxes: list[Letterbox]
    known: torch.Tensor | None = None

    def __len__(self) -> int:
        return len(self.image_ids)

    def to(self, device: torch.device | str, non_blocking: bool = False) -> "Batch":
        """The batch with its tensors on a device."""
        return self._mapped(lambda tensor: tensor.to(device, non_blocking=non_blocking))

    def parts(self, count: int) -> "list[Batch]":
        """The batch in so many parts of about the same number of images, each with the objects on them."""
        if count == 1:
            return [self]
        return [self._part(share_of(len(self), number, count)) for number in range(count)]

    def _part(self, images: slice) -> "Batch":
        on_them = (self.image_index >= images.start) & (self.image_index < images.stop)
        return Batch(
            self.images[images],
            self.boxes[on_them],
            self.labels[on_them],
            self.image_index[on_them] - images.start,
            self.samples[images],
            self.image_ids[images],
            self.letterboxes[images],
            None if self.known is None else self.known[images],
        )

    def pin_memory(self) -> "Batch":
        """The batch with its tensors in page-locked memory."""
        return self._mapped(lambda tensor: tensor.pin_memory())

    def _mapped(self, change: Callable[[torch.Tensor], torch.Tensor]) -> "Batch":
        return replace(
            self,
            images=change(self.images),
            boxes=change(self.boxes),
            labels=change(self.labels),
            image_index=change(self.image_index),
            samples=change(self.samples),
            known=None if self.known is None else change(self.known),
        )


class Loader:
    """One worker's share of every training batch.

    Args:
        shards: the images.
        image_size: (width, height) of the network's input in pixels.
        batch_size: of the global batch, over all workers.
        augment: what happens to the images; None leaves them as they are.
        seed: of order and augmentation.
        rank: of this worker.
        world_size: number of workers.
        threads: that decode and augment in the background; 0 does it in the calling thread.
        shuffle: False keeps the order of the shards.
        factors: how often an epoch shows each image, float64 [images], see `balanced_order`; None shows each once.
        pinned: give batches in page-locked memory, from which a GPU takes them while it works.
    """

    def __init__(
        self,
        shards: Images,
        image_size: Size,
        batch_size: int,
        *,
        augment: AugmentConfig | None = None,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
        threads: int = 1,
        shuffle: bool = True,
        factors: NDArray[np.float64] | None = None,
        pinned: bool = False,
    ) -> None:
        self.shards = shards
        self.image_size = image_size
        self.batch_size = batch_size
        self.augment = augment
        self.seed = seed
        self.rank = rank
        self.world_size = world_size
        self.threads = threads
        self.shuffle = shuffle
        self.factors = factors
        self.pinned = pinned

    @cached_property
    def samples(self) -> int:
        """Images that an epoch shows, those that it repeats counted each time."""
        return self._order(0).samples

    @cached_property
    def steps(self) -> int:
        """Global batches in an epoch; the last may be short."""
        return self._order(0).steps

    def batches(
        self, epoch: int, start_step: int = 0, image_size: Size | SizeSchedule | None = None
    ) -> Iterator[Batch]:
        """This worker's share of each global batch of an epoch.

        A function of (seed, epoch, step) and the shards alone: neither threads nor an interruption before
        `start_step` change a batch, and the shares of all workers, concatenated, are the same for any number of them.

        Args:
            epoch: counted from 0.
            start_step: where to resume.
            image_size: instead of the loader's own, or a schedule of it.
        """
        order = self._order(epoch)
        size_at = image_size if callable(image_size) else lambda *_: image_size or self.image_size
        with self.shards.prefetching() as prefetch:
            steps = _announced(order, range(start_step, order.steps), prefetch)
            jobs = (self._job(order, step, size_at(self.seed, epoch, step)) for step in steps)
            yield from _prefetched(jobs, self.threads)

    def whole(self, batch_size: int | None = None) -> "Loader":
        """The same for all workers' shares together, in batches of its own size or another."""
        return Loader(
            self.shards,
            self.image_size,
            batch_size or self.batch_size,
            augment=self.augment,
            seed=self.seed,
            threads=self.threads,
            shuffle=self.shuffle,
            factors=self.factors,
        )

    def _job(self, order: Order, step: int, size: Size) -> "_Job":
        batch = order.batch(step)
        own = share_of(len(batch), self.rank, self.world_size)
        epochs, pool = order.epochs(step)[own], order.pool(step)
        return _Job(self.shards, batch[own], size, epochs, pool, self.augment, self.seed, self.pinned)

    def _order(self, epoch: int) -> Order:
        if self.factors is not None:
            return BalancedOrder(self.shards.starts, self.factors, self.batch_size, self.seed, epoch)
        if not isinstance(self.shards, Mixture):
            return EpochOrder(self.shards.starts, self.batch_size, self.seed, epoch, shuffle=self.shuffle)
        starts = [source.starts for source in self.shards.sources]
        return MixtureOrder(starts, self.shards.weights, self.batch_size, self.seed, epoch, shuffle=self.shuffle)


def evaluation_batches(
    shards: Images,
    image_size: Size,
    batch_size: int,
    rank: int = 0,
    world_size: int = 1,
    threads: int = 1,
) -> Iterator[Batch]:
    """One worker's share of the batches of an evaluation, in the order of the shards and without augmentation.

    Whole batches are dealt out in turn, so that each is the same for any number of workers, to the last bit.
    """
    order = EpochOrder(shards.starts, batch_size, seed=0, epoch=0, shuffle=False)
    with shards.prefetching() as prefetch:
        steps = _announced(order, range(rank, order.steps, world_size), prefetch)
        jobs = (_Job(shards, order.batch(step), image_size, order.epochs(step)) for step in steps)
        yield from _prefetched(jobs, threads)


def image_batches(shards: Images, image_size: tuple[int, int], count: int) -> Iterator[torch.Tensor]:
    """The first images of a split, those of a mixture by weight, as the network sees them, a few at a time.

    Returns:
        float [n, 3, H, W] in 0..1; the n add up to `count`, or to all there are.
    """
    return _images(Loader(shards, image_size, max(1, min(count, FEW)), shuffle=False).batches(0), count)


def training_image_batches(loader: Loader, count: int) -> Iterator[torch.Tensor]:
    """The first images of a loader's first epoch, augmented, the same whichever worker asks, a few at a time.

    Returns:
        float [n, 3, H, W] in 0..1; the n add up to `count`, or to all that an epoch shows.
    """
    return _images(loader.whole(max(1, min(count, FEW))).batches(0), count)


def _images(batches: Iterator[Batch], count: int) -> Iterator[torch.Tensor]:
    for batch in islice(batches, -(-count // FEW)):
        images = batch.images[:count].float().div_(255)
        count -= len(images)
        yield images


def images_of(shards: Images, image_size: tuple[int, int], count: int) -> torch.Tensor:
    """The same together, float [count, 3, H, W] in 0..1."""
    width, height = image_size
    return torch.cat([torch.zeros(0, 3, height, width), *image_batches(shards, image_size, count)])


def _announced(order: Order, steps: Iterable[int], prefetch: Prefetch) -> Iterator[int]:
    """The steps; at each that begins another window of shards, what is needed from there on is told."""
    told: object = None
    for step in steps:
        if (window := order.window(step)) != told:
            told = window
            prefetch(order.shards_from(step))  # an array that is read as far as there is room for what it names
        yield step


@dataclass(frozen=True)
class _Job:
    """What it takes to make one batch.

    Randomness of a sample derives from its epoch, and its mosaic partners are those samples of the pool that come from
    the same source: others would have other classes labelled.
    """

    shards: Images
    samples: NDArray[np.int64]
    size: Size
    epochs: NDArray[np.int64]
    pool: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    augment: AugmentConfig | None = None
    seed: int = 0
    pinned: bool = False

    def run(self) -> Batch:
        batch = self._made()
        return batch.pin_memory() if self.pinned else batch

    def _made(self) -> Batch:
        pixels = np.empty((len(self.samples), self.size[1], self.size[0], 3), np.uint8)
        samples = [self.shards[int(number)] for number in self.samples]
        numbers, epochs = self.samples.tolist(), self.epochs.tolist()
        loaded = [self._load(*item) for item in zip(numbers, epochs, samples, pixels, strict=True)]
        known = known_classes(self.shards, self.samples)
        kept = [boxes.select(~boxes.ignore) for boxes, _ in loaded]
        return Batch(
            images=torch.from_numpy(pixels).permute(0, 3, 1, 2),
            boxes=torch.from_numpy(np.concatenate([np.zeros((0, 4), np.float32), *(boxes.xyxy for boxes in kept)])),
            labels=torch.from_numpy(np.concatenate([np.zeros(0, np.int64), *(boxes.labels for boxes in kept)])),
            image_index=torch.from_numpy(np.repeat(np.arange(len(kept)), [len(boxes) for boxes in kept])),
            samples=torch.from_numpy(self.samples.copy()),
            image_ids=[sample.image_id for sample in samples],
            letterboxes=[box for _, box in loaded],
            known=None if known is None else torch.from_numpy(known),
        )

    def _load(self, number: int, epoch: int, sample: Sample, canvas: Pixels) -> tuple[Boxes, Letterbox]:
        """Write one image into its place in the batch."""
        if self.augment is None:
            return _letterboxed(sample, canvas)
        generator = sample_seed(self.seed, epoch, number)
        if generator.random() < self.augment.mosaic:
            pool = same_source(self.shards, number, self.pool)
            partners = [self.shards[int(one)] for one in generator.choice(pool, size=3)]
            boxes = mosaic_into((_tile(one, self.size) for one in (sample, *partners)), canvas, generator)
            box = Letterbox(1.0, 0, 0, *self.size)
        else:
            boxes, box = _letterboxed(sample, canvas)
        return augment(canvas, boxes, self.augment, generator), box


def _letterboxed(sample: Sample, canvas: Pixels) -> tuple[Boxes, Letterbox]:
    box = plan_letterbox(sample.width, sample.height, (canvas.shape[1], canvas.shape[0]))
    letterbox_into(_decoded(sample, box.scale)[0], canvas, box)
    return Boxes(box.forward(sample.boxes.xyxy), sample.boxes.labels, sample.boxes.ignore), box


def _tile(sample: Sample, size: Size) -> tuple[Pixels, Boxes]:
    """An image for a mosaic, and its boxes in the pixels that were decoded."""
    scale = plan_letterbox(sample.width, sample.height, size).scale
    image, factor = _decoded(sample, scale)
    return image, Boxes(sample.boxes.xyxy / np.float32(factor), sample.boxes.labels, sample.boxes.ignore)


def _decoded(sample: Sample, scale: float) -> tuple[Pixels, int]:
    """An image that will be scaled by `scale`, decoded no larger than that needs, and how much smaller it is."""
    factor = reduction(sample.image, scale)
    return decode_image(sample.image, factor, source=f"{sample.shard}: image {sample.image_id}", trusted=True), factor


def _prefetched(jobs: Iterable[_Job], threads: int) -> Iterator[Batch]:
    """Batches in the order of the jobs; as many are in the making or waiting as there are threads, plus one."""
    cv2.setNumThreads(1)  # these threads are the parallelism; OpenCV's own would fight them for cores
    if threads == 0:
        yield from (job.run() for job in jobs)
        return
    pool = ThreadPoolExecutor(threads, thread_name_prefix="loader")
    waiting: deque[Future[Batch]] = deque()
    try:
        for job in jobs:
            waiting.append(pool.submit(job.run))
            if len(waiting) > threads:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
