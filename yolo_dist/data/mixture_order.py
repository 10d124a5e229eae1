"""Which samples of several sources make up each training step; promises what `order.py` promises for one source.

Every source goes through epochs of its own, one after another, at a pace in proportion to its weight: a small source
with a large weight is repeated, shuffled anew each time.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from itertools import accumulate
from math import floor

import numpy as np
from numpy.typing import NDArray

from yolo_dist.data.order import WINDOW_SHARDS, EpochOrder, mixing_stream

_OWN_EPOCHS = 4
"""Orders kept for each source: more than a batch usually needs."""


@dataclass(frozen=True)
class _Part:
    """Samples of a global batch: the positions from `begin` up to `end` in an epoch of one source."""

    source: int
    epoch: int
    begin: int
    end: int


class MixtureOrder:
    """The order of one epoch of a mixture, in which as many samples are drawn as its sources hold together.

    Args:
        starts: of each source: number of the first sample of each shard, then the number of all its samples; int64.
        weights: of each source; above 0, of any sum.
        batch_size: samples in a global batch, over all workers.
        seed: of the run.
        epoch: counted from 0.
        shuffle: False keeps the order of the shards of each source, and that of the sources within a batch.
        window_shards: how many shards of a source are shuffled together.
    """

    def __init__(
        self,
        starts: Sequence[NDArray[np.int64]],
        weights: Sequence[float],
        batch_size: int,
        seed: int,
        epoch: int,
        *,
        shuffle: bool = True,
        window_shards: int = WINDOW_SHARDS,
    ) -> None:
        self.starts = starts
        self.weights = weights
        self.batch_size = batch_size
        self.seed = seed
        self.epoch = epoch
        self.shuffle = shuffle
        self.window_shards = window_shards
        self.sizes = [int(own[-1]) for own in starts]
        self._first_sample = [0, *accumulate(self.sizes)]
        self._first_shard = [0, *accumulate(len(own) - 1 for own in starts)]
        self._own = lru_cache(maxsize=_OWN_EPOCHS * len(starts))(self._own_order)

    @property
    def samples(self) -> int:
        """How many are drawn in the epoch."""
        return self._first_sample[-1]

    @property
    def steps(self) -> int:
        """Global batches in the epoch; the last may be short."""
        return -(-self.samples // self.batch_size)

    @property
    def shards(self) -> NDArray[np.int64]:
        """Numbers of the shards in about the order in which the epoch needs them, int64 [≤ shards]."""
        return self.shards_from(0)

    def batch(self, step: int) -> NDArray[np.int64]:
        """Sample numbers of global batch `step`, int64 [≤ batch_size]; they count on from source to source.

        Raises:
            IndexError: the epoch has no such step.
        """
        numbers = [
            self._own(part.source, part.epoch).between(part.begin, part.end) + self._first_sample[part.source]
            for part in self._parts(step)
        ]
        return self._mixed(np.concatenate(numbers), step)

    def epochs(self, step: int) -> NDArray[np.int64]:
        """The source's own epoch of each sample of global batch `step`, int64 [≤ batch_size].

        A sample occurs once in each: randomness that derives from it and the sample differs whenever it is repeated.
        """
        parts = list(self._parts(step))
        epochs = np.repeat([part.epoch for part in parts], [part.end - part.begin for part in parts])
        return self._mixed(epochs, step)

    def pool(self, step: int) -> NDArray[np.int64]:
        """Samples of all sources that partners of global batch `step` may be chosen from, int64.

        As an `EpochOrder` has them for each source; at the beginning of an epoch of its own also those of the end of
        the one before.
        """
        numbers: list[NDArray[np.int64]] = []
        for part in self._parts(step):
            own, first = self._own(part.source, part.epoch), self._first_sample[part.source]
            in_first_window = len(own.shards_after(part.begin)) == len(own.shards)
            if part.epoch and in_first_window:
                last = self.sizes[part.source]
                numbers.append(self._own(part.source, part.epoch - 1).pool_between(last - 1, last) + first)
            numbers.append(own.pool_between(part.begin, part.end) + first)
        return np.concatenate(numbers)

    def shards_from(self, step: int) -> NDArray[np.int64]:
        """Shards that the epoch still needs at global batch `step`, in about the order in which it needs them."""
        begin, _ = self._bounds(step)
        shards, needed = [], []
        for source, (first, last) in enumerate(self._drawn_between(begin, (self.epoch + 1) * self.samples)):
            epoch, position = divmod(first, self.sizes[source])
            # what is left of its own epoch, and another one if it comes to that: there are no more shards
            for own_epoch, after in ((epoch, position), (epoch + 1, 0)):
                if own_epoch * self.sizes[source] + after >= last:
                    continue
                order = self._own(source, own_epoch)
                own = order.shards_after(after)
                rows = np.diff(order.starts)[order.shards]
                before = (rows.cumsum() - rows)[len(rows) - len(own) :]
                shards.append(own + self._first_shard[source])
                needed.append((own_epoch * self.sizes[source] + before) / self.weights[source])
        in_order = np.concatenate(shards)[np.argsort(np.concatenate(needed), kind="stable")]
        _, first_time = np.unique(in_order, return_index=True)
        return np.asarray(in_order[np.sort(first_time)])

    def _bounds(self, step: int) -> tuple[int, int]:
        """Positions in the endless sequence of epochs at which a global batch begins and ends."""
        if not 0 <= step < self.steps:
            raise IndexError(f"step {step} of an epoch of {self.steps}")
        begin = self.epoch * self.samples
        return begin + step * self.batch_size, begin + min((step + 1) * self.batch_size, self.samples)

    def _drawn_between(self, begin: int, end: int) -> Iterator[tuple[int, int]]:
        """For each source how many of its samples were drawn before the positions `begin` and `end`."""
        return zip(apportion(begin, self.weights), apportion(end, self.weights), strict=True)

    def _parts(self, step: int) -> Iterator[_Part]:
        for source, (first, last) in enumerate(self._drawn_between(*self._bounds(step))):
            while first < last:
                epoch, begin = divmod(first, self.sizes[source])
                end = min(begin + last - first, self.sizes[source])
                yield _Part(source, epoch, begin, end)
                first += end - begin

    def _mixed(self, values: NDArray[np.int64], step: int) -> NDArray[np.int64]:
        """In the order of the batch, so that no worker's share is all of one source."""
        return mixing_stream(self.seed, self.epoch, step).permutation(values) if self.shuffle else values

    def _own_order(self, source: int, epoch: int) -> EpochOrder:
        share = self.weights[source] / sum(self.weights)
        return EpochOrder(
            self.starts[source],
            max(1, round(self.batch_size * share)),
            self.seed,
            epoch,
            shuffle=self.shuffle,
            window_shards=self.window_shards,
        )


def apportion(count: int, weights: Sequence[float]) -> list[int]:
    """How many of the first `count` draws are each source's; together `count`, and never fewer for a larger one.

    The heaviest source gets its share, rounded; of what is left the next one gets its share, and so on. Up to four
    sources nobody is ever a whole sample from the exact share.
    """
    heaviest_first = sorted(range(len(weights)), key=lambda source: -weights[source])
    counts, rest, left = [0] * len(weights), sum(map(Fraction, weights)), count
    for source in heaviest_first:
        weight = Fraction(weights[source])
        counts[source] = floor(left * weight / rest + Fraction(1, 2))
        left, rest = left - counts[source], rest - weight
    return counts
