"""Which samples make up each training step: a pure function of seed, epoch and sample count.

The number of nodes, workers or threads never enters: global batch k holds the same samples in the same order
everywhere, so a run resumes at (epoch, step) on any number of workers.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

_WORD = 1 << 64
_ORDER_STREAM = _WORD - 1  # no sample has this number, so that shuffling shares no stream with augmentation


@dataclass(frozen=True)
class EpochOrder:
    """The order of one epoch.

    Attributes:
        samples: how many there are.
        batch_size: samples in a global batch, over all workers.
        seed: of the run.
        epoch: counted from 0.
        shuffle: False keeps the order of the shards.
    """

    samples: int
    batch_size: int
    seed: int
    epoch: int
    shuffle: bool = True

    @property
    def steps(self) -> int:
        """Global batches in the epoch; the last may be short."""
        return -(-self.samples // self.batch_size)

    @cached_property
    def _permutation(self) -> NDArray[np.int64]:
        if not self.shuffle:
            return np.arange(self.samples, dtype=np.int64)
        generator = sample_seed(self.seed, self.epoch, _ORDER_STREAM)
        return generator.permutation(self.samples).astype(np.int64, copy=False)

    def batch(self, step: int) -> NDArray[np.int64]:
        """Sample numbers of global batch `step`, int64 [≤ batch_size].

        Raises:
            IndexError: the epoch has no such step.
        """
        if not 0 <= step < self.steps:
            raise IndexError(f"step {step} of an epoch of {self.steps}")
        start = step * self.batch_size
        return self._permutation[start : start + self.batch_size]


def batch_indices(order: EpochOrder, step: int, rank: int, world_size: int) -> NDArray[np.int64]:
    """Sample numbers of one rank's share of global batch `step`, int64 [about batch / world_size].

    Concatenated over ranks this is the same array for every world size: that is the promise. Shares differ by at most
    one sample; where there are more ranks than samples some are empty.
    """
    batch = order.batch(step)
    return batch[len(batch) * rank // world_size : len(batch) * (rank + 1) // world_size]


def sample_seed(seed: int, epoch: int, sample: int) -> np.random.Generator:
    """The random generator of one sample in one epoch, from which all its augmentation and mosaic partners derive.

    Philox is keyed directly (Salmon et al. 2011, "Parallel Random Numbers: As Easy as 1, 2, 3"): different keys and
    counters give independent streams without hashing a seed first.
    """
    return np.random.Generator(np.random.Philox(key=_words(seed, epoch), counter=_words(0, 0, 0, sample)))


def _words(*values: int) -> NDArray[np.uint64]:
    return np.array([value % _WORD for value in values], np.uint64)
