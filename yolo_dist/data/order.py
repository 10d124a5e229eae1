"""Which samples make up each training step: a pure function of seed, epoch and the shards' sizes.

The number of nodes, workers or threads never enters: global batch k holds the same samples in the same order
everywhere, so a run resumes at (epoch, step) on any number of workers.

Shards are shuffled, then samples within windows of some shards, so that a node's cache need not hold the whole set,
and no worker the whole permutation. The first batches of an epoch come from its first shards, so that training starts
while the others are on their way.
"""

from collections import OrderedDict
from functools import cached_property
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

WINDOW_SHARDS = 16
"""Shards among which samples are shuffled: about a gibibyte."""

_WORD = 1 << 64
_ORDER_STREAM, _MIXING_STREAM = _WORD - 1, _WORD - 2  # no sample has these numbers: augmentation has its own streams
_ROUNDING_STREAM = _WORD - 3
_SHARDS = 0  # of the order streams; window w has number w + 1


class Order(Protocol):
    """What a loader asks of the order of an epoch; `EpochOrder` says what each answer is."""

    @property
    def samples(self) -> int: ...  # noqa: D102
    @property
    def steps(self) -> int: ...  # noqa: D102
    def batch(self, step: int) -> NDArray[np.int64]: ...  # noqa: D102
    def epochs(self, step: int) -> NDArray[np.int64]: ...  # noqa: D102
    def pool(self, step: int) -> NDArray[np.int64]: ...  # noqa: D102
    def window(self, step: int) -> object: ...  # noqa: D102
    def shards_from(self, step: int) -> NDArray[np.int64]: ...  # noqa: D102


class EpochOrder:
    """The order of one epoch.

    Args:
        starts: number of the first sample of each shard, then the number of all samples; int64 [shards + 1].
        batch_size: samples in a global batch, over all workers.
        seed: of the run.
        epoch: counted from 0.
        shuffle: False keeps the order of the shards.
        window_shards: how many shards are shuffled together.
    """

    def __init__(
        self,
        starts: NDArray[np.int64],
        batch_size: int,
        seed: int,
        epoch: int,
        *,
        shuffle: bool = True,
        window_shards: int = WINDOW_SHARDS,
    ) -> None:
        self.starts = starts
        self.batch_size = batch_size
        self.seed = seed
        self.epoch = epoch
        self.shuffle = shuffle
        self.window_shards = window_shards
        self._recent: OrderedDict[int, NDArray[np.int64]] = OrderedDict()

    @property
    def samples(self) -> int:
        """How many there are."""
        return int(self.starts[-1])

    @property
    def steps(self) -> int:
        """Global batches in the epoch; the last may be short."""
        return -(-self.samples // self.batch_size)

    @cached_property
    def shards(self) -> NDArray[np.int64]:
        """Numbers of the shards in the order in which the epoch needs them, int64 [shards]."""
        count = len(self.starts) - 1
        if not self.shuffle:
            return np.arange(count, dtype=np.int64)
        return _stream(self.seed, self.epoch, _SHARDS).permutation(count).astype(np.int64, copy=False)

    def batch(self, step: int) -> NDArray[np.int64]:
        """Sample numbers of global batch `step`, int64 [≤ batch_size].

        Raises:
            IndexError: the epoch has no such step.
        """
        return self.between(*self._bounds(step))

    def epochs(self, step: int) -> NDArray[np.int64]:
        """The epoch of each sample of global batch `step`, for its randomness: this one, int64 [≤ batch_size]."""
        begin, end = self._bounds(step)
        return np.full(end - begin, self.epoch)

    def between(self, begin: int, end: int) -> NDArray[np.int64]:
        """Sample numbers at the positions from `begin` up to `end`, int64 [end − begin]."""
        first, last = self.window_at(begin), self.window_at(end - 1)
        offset = int(self._ends[first - 1]) if first else 0
        numbers = [self._window(window) for window in range(first, last + 1)]
        while len(self._recent) > last - first + 3:
            self._recent.popitem(last=False)
        joined = numbers[0] if len(numbers) == 1 else np.concatenate(numbers)
        return joined[begin - offset : end - offset]

    def pool(self, step: int) -> NDArray[np.int64]:
        """Samples that partners of global batch `step` may be chosen from, int64; see `pool_between`."""
        return self.pool_between(*self._bounds(step))

    def pool_between(self, begin: int, end: int) -> NDArray[np.int64]:
        """Samples that partners of those at the positions from `begin` up to `end` may be chosen from, int64.

        All that the epoch has brought up to there, themselves included, no further back than the window before their
        own: their shards are at hand.
        """
        window = max(0, self.window_at(begin) - 1)
        return self.between(int(self._ends[window - 1]) if window else 0, end)

    def window(self, step: int) -> int:
        """Number of the window of shards in which global batch `step` begins."""
        return self.window_at(self._bounds(step)[0])

    def shards_from(self, step: int) -> NDArray[np.int64]:
        """Shards that the epoch still needs at global batch `step`, in the order in which it needs them."""
        begin, _ = self._bounds(step)
        return self.shards_after(begin)

    def shards_after(self, position: int) -> NDArray[np.int64]:
        """Shards that the epoch still needs at a position, in the order in which it needs them."""
        return self.shards[self.window_at(position) * self.window_shards :]

    def window_at(self, position: int) -> int:
        """Number of the window of shards that a position is in."""
        return int(np.searchsorted(self._ends, position, side="right"))

    def _bounds(self, step: int) -> tuple[int, int]:
        if not 0 <= step < self.steps:
            raise IndexError(f"step {step} of an epoch of {self.steps}")
        return step * self.batch_size, min((step + 1) * self.batch_size, self.samples)

    @cached_property
    def _ends(self) -> NDArray[np.int64]:
        """Position in the epoch at which each window ends, int64 [windows]."""
        rows = np.diff(self.starts)[self.shards]
        return np.add.reduceat(rows, np.arange(0, len(rows), self.window_shards)).cumsum()

    def _window(self, window: int) -> NDArray[np.int64]:
        """Sample numbers of a window in the order of the epoch."""
        if window not in self._recent:
            self._recent[window] = self._shuffled(window)
        self._recent.move_to_end(window)
        return self._recent[window]

    def _shuffled(self, window: int) -> NDArray[np.int64]:
        shards = self.shards[window * self.window_shards : (window + 1) * self.window_shards]
        rows = self.starts[shards + 1] - self.starts[shards]
        places = np.repeat(np.arange(len(shards)), rows)
        shift = self.starts[shards] - (rows.cumsum() - rows)
        numbers: NDArray[np.int64] = np.arange(len(places), dtype=np.int64) + np.repeat(shift, rows)
        if not self.shuffle:
            return numbers
        shuffled = _stream(self.seed, self.epoch, window + 1).permutation(len(numbers))
        if window == 0:
            shuffled = self._early_shards_first(shuffled, places)
        return np.asarray(numbers[shuffled])

    def _early_shards_first(self, shuffled: NDArray[np.int64], places: NDArray[np.int64]) -> NDArray[np.int64]:
        """Batch b of the epoch comes from its first b + 1 shards, as far as they go."""
        for place in range(int(places[-1])):
            rest = shuffled[place * self.batch_size :]
            early = np.flatnonzero(places[rest] <= place)[: self.batch_size]
            late = np.ones(len(rest), np.bool_)
            late[early] = False
            shuffled = np.concatenate([shuffled[: place * self.batch_size], rest[early], rest[late]])
        return shuffled


def share_of(count: int, rank: int, world_size: int) -> slice:
    """Which of the `count` samples of a global batch are one rank's, about count / world_size.

    Concatenated over ranks the shares are the batch for every world size: that is the promise. They differ by at most
    one sample; where there are more ranks than samples some are empty.
    """
    return slice(count * rank // world_size, count * (rank + 1) // world_size)


def sample_seed(seed: int, epoch: int, sample: int) -> np.random.Generator:
    """The random generator of one sample in one epoch, from which all its augmentation and mosaic partners derive.

    Philox is keyed directly (Salmon et al. 2011, "Parallel Random Numbers: As Easy as 1, 2, 3"): different keys and
    counters give independent streams without hashing a seed first.
    """
    return np.random.Generator(np.random.Philox(key=_words(seed, epoch), counter=_words(0, 0, 0, sample)))


def _stream(seed: int, epoch: int, number: int) -> np.random.Generator:
    """A random generator for the order itself."""
    return np.random.Generator(np.random.Philox(key=_words(seed, epoch), counter=_words(0, 0, number, _ORDER_STREAM)))


def mixing_stream(seed: int, epoch: int, step: int) -> np.random.Generator:
    """The random generator that shuffles the samples of several sources within global batch `step`."""
    return np.random.Generator(np.random.Philox(key=_words(seed, epoch), counter=_words(0, 0, step, _MIXING_STREAM)))


def rounding_stream(seed: int, epoch: int) -> np.random.Generator:
    """The random generator that rounds numbers of repetitions to whole ones."""
    return np.random.Generator(np.random.Philox(key=_words(seed, epoch), counter=_words(0, 0, 0, _ROUNDING_STREAM)))


def _words(*values: int) -> NDArray[np.uint64]:
    return np.array([value % _WORD for value in values], np.uint64)
