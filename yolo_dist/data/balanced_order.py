"""Which samples make up each step where images of rare classes come more often; promises what `order.py` promises.

Gupta et al. 2019, "LVIS: A Dataset for Large Vocabulary Instance Segmentation", §3.1 (repeat factor sampling).
"""

import numpy as np
from numpy.typing import NDArray

from yolo_dist.data.mixture import Images
from yolo_dist.data.order import WINDOW_SHARDS, EpochOrder, rounding_stream

REPEAT_STRIDE = 1 << 32
"""Between the epochs that repetitions of a sample have for their randomness: no stage has so many of its own."""


def repeat_factors(images: Images, threshold: float | None = None) -> NDArray[np.float64]:
    """How often an epoch shows each image: r(i) = max over its classes c of max(1, √(t / f(c))), float64 [images].

    f(c) is the share of the images on which class c is. An image without objects comes once.

    Args:
        images: all annotations are read, no pixel.
        threshold: t, the share of images under which a class counts as rare; by default the median of all f(c) above 0.
    """
    classes = [np.unique(sample.boxes.labels[~sample.boxes.ignore]) for sample in images]
    frequency = np.bincount(np.concatenate([np.zeros(0, np.int64), *classes])) / max(1, len(classes))
    if threshold is None:
        threshold = float(np.median(frequency[frequency > 0])) if frequency.any() else 1.0
    with np.errstate(divide="ignore"):
        factors = np.maximum(1, np.sqrt(threshold / frequency))
    return np.array([factors[own].max(initial=1.0) for own in classes])


class BalancedOrder:
    """The order of one epoch in which sample i comes ⌊r(i)⌋ times, and once more with the probability of the rest.

    The number of all repetitions is the same in every epoch. Repetitions are shuffled among the samples of their window
    of shards like samples of their own, and augmented each in its own way.

    Args:
        starts: number of the first sample of each shard, then the number of all samples; int64 [shards + 1].
        factors: r of each sample, at least 1, float64 [samples].
        batch_size: samples in a global batch, over all workers.
        seed: of the run.
        epoch: counted from 0.
        window_shards: how many shards are shuffled together.
    """

    def __init__(
        self,
        starts: NDArray[np.int64],
        factors: NDArray[np.float64],
        batch_size: int,
        seed: int,
        epoch: int,
        *,
        window_shards: int = WINDOW_SHARDS,
    ) -> None:
        self.repeats = repeats_of(factors, rounding_stream(seed, epoch).random())
        ends = np.concatenate([[0], self.repeats.cumsum()])
        self._first = ends[:-1]
        self._samples = np.repeat(np.arange(len(factors)), self.repeats)
        self._order = EpochOrder(ends[starts], batch_size, seed, epoch, window_shards=window_shards)

    @property
    def samples(self) -> int:
        """How many there are, repetitions counted."""
        return self._order.samples

    @property
    def steps(self) -> int:
        """Global batches in the epoch; the last may be short."""
        return self._order.steps

    def batch(self, step: int) -> NDArray[np.int64]:
        """Sample numbers of global batch `step`, int64 [≤ batch_size].

        Raises:
            IndexError: the epoch has no such step.
        """
        return np.asarray(self._samples[self._order.batch(step)])

    def epochs(self, step: int) -> NDArray[np.int64]:
        """The epoch of each sample of global batch `step`, for its randomness; another one for each repetition."""
        places = self._order.batch(step)
        repetition = places - self._first[self._samples[places]]
        return np.asarray(self._order.epochs(step) + repetition * REPEAT_STRIDE)

    def pool(self, step: int) -> NDArray[np.int64]:
        """Samples that partners of global batch `step` may be chosen from, repetitions as often as they are there."""
        return np.asarray(self._samples[self._order.pool(step)])

    def window(self, step: int) -> int:
        """Number of the window of shards in which global batch `step` begins."""
        return self._order.window(step)

    def shards_from(self, step: int) -> NDArray[np.int64]:
        """Shards that the epoch still needs at global batch `step`, in the order in which it needs them."""
        return self._order.shards_from(step)


def repeats_of(factors: NDArray[np.float64], offset: float) -> NDArray[np.int64]:
    """Whole numbers of repetitions, int64 [samples]; their sum does not depend on the offset.

    Fractions are rounded by systematic sampling: equally spaced points on their running sum, shifted by `offset` (0 to
    1) of the space between them, each round one of them up.
    """
    whole = np.floor(factors).astype(np.int64)
    running = (factors - whole).cumsum()
    total = float(running[-1]) if len(running) else 0.0
    points = round(total)
    if points:
        chosen = np.searchsorted(running, (np.arange(points) + offset) * (total / points), side="right")
        np.add.at(whole, chosen.clip(max=len(whole) - 1), 1)
    return whole
