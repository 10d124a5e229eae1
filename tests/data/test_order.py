"""The order is a pure function: a thousand worlds are checked here without a process."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from yolo_dist.data.order import EpochOrder, sample_seed, share_of


def starts_of(rows: list[int]) -> NDArray[np.int64]:
    return np.cumsum([0, *rows], dtype=np.int64)


orders = st.builds(
    EpochOrder,
    starts=st.lists(st.integers(1, 40), min_size=1, max_size=12).map(starts_of),
    batch_size=st.integers(1, 64),
    seed=st.integers(0, 2**40),
    epoch=st.integers(0, 1000),
    shuffle=st.booleans(),
    window_shards=st.integers(1, 5),
)


def shard_of(order: EpochOrder, samples: NDArray[np.int64]) -> set[int]:
    return {int(shard) for shard in np.searchsorted(order.starts, samples, side="right") - 1}


def batch_indices(order: EpochOrder, step: int, rank: int, world_size: int) -> NDArray[np.int64]:
    """One rank's share of a global batch."""
    batch = order.batch(step)
    return batch[share_of(len(batch), rank, world_size)]


def stream(order: EpochOrder, world_size: int, start: int = 0, stop: int | None = None) -> list[int]:
    """What all ranks of a world read together, in order."""
    steps = range(start, order.steps if stop is None else stop)
    shares = [batch_indices(order, step, rank, world_size) for step in steps for rank in range(world_size)]
    return [int(sample) for share in shares for sample in share]


@settings(deadline=None)
@given(orders)
def test_an_epoch_holds_every_sample_once(order: EpochOrder) -> None:
    assert sorted(stream(order, 1)) == list(range(order.samples))


@settings(deadline=None)
@given(orders, st.integers(1, 17))
def test_global_batches_are_the_same_for_every_world_size(order: EpochOrder, world_size: int) -> None:
    for step in range(order.steps):
        shares = [batch_indices(order, step, rank, world_size) for rank in range(world_size)]
        assert np.concatenate(shares).tolist() == order.batch(step).tolist()
        lengths = [len(share) for share in shares]
        assert max(lengths) - min(lengths) <= 1


@settings(deadline=None)
@given(orders)
def test_only_the_last_batch_may_be_short(order: EpochOrder) -> None:
    lengths = [len(order.batch(step)) for step in range(order.steps)]
    assert all(length == order.batch_size for length in lengths[:-1])
    assert 1 <= lengths[-1] <= order.batch_size


@pytest.mark.parametrize(("before", "after"), [(1, 2), (2, 4), (4, 1), (3, 6), (2, 3)])
@pytest.mark.parametrize("step", [0, 1, 4, -2, -1], ids=["0", "1", "4", "last−1", "last"])
def test_resume_goes_on_exactly_where_it_stopped_in_a_world_of_another_size(step: int, before: int, after: int) -> None:
    order = EpochOrder(starts_of([30, 1, 25, 7, 38]), batch_size=8, seed=3, epoch=5, window_shards=2)
    stop = step % order.steps
    resumed = stream(order, before, 0, stop) + stream(order, after, stop)
    assert resumed == stream(order, 1)


def test_epochs_and_seeds_give_different_orders_and_the_same_ones_give_the_same() -> None:
    def order(seed: int, epoch: int) -> list[int]:
        return stream(EpochOrder(starts_of([40, 60]), 10, seed=seed, epoch=epoch), 1)

    assert order(0, 0) == order(0, 0)
    assert order(0, 0) != order(0, 1)
    assert order(0, 0) != order(1, 0)


def test_without_shuffling_the_order_is_that_of_the_shards() -> None:
    order = EpochOrder(starts_of([3, 3, 4]), 4, seed=0, epoch=3, shuffle=False, window_shards=2)
    assert stream(order, 2) == list(range(10))


@pytest.mark.parametrize("step", [-1, 3])
def test_a_step_outside_the_epoch_is_refused(step: int) -> None:
    with pytest.raises(IndexError, match="epoch of 3"):
        EpochOrder(starts_of([10]), 4, seed=0, epoch=0).batch(step)


@settings(deadline=None)
@given(orders)
def test_samples_move_only_within_windows_of_shuffled_shards(order: EpochOrder) -> None:
    """A cache of a window of shards, and the next while it is crossed, never fetches a shard twice."""
    read = np.concatenate([order.batch(step) for step in range(order.steps)])
    done = 0
    for first in range(0, len(order.shards), order.window_shards):
        window = order.shards[first : first + order.window_shards]
        rows = int((order.starts[window + 1] - order.starts[window]).sum())
        assert shard_of(order, read[done : done + rows]) == set(window.tolist())
        done += rows


@settings(deadline=None)
@given(orders)
def test_what_an_epoch_still_needs_is_known_at_every_step(order: EpochOrder) -> None:
    for step in range(order.steps):
        left = np.concatenate([order.batch(later) for later in range(step, order.steps)])
        assert shard_of(order, left) <= set(order.shards_from(step).tolist())


@settings(deadline=None)
@given(orders)
def test_partners_come_from_shards_that_are_at_hand(order: EpochOrder) -> None:
    """From what was read before, within two windows, and from the batch itself."""
    read = np.concatenate([order.batch(step) for step in range(order.steps)])
    for step in range(order.steps):
        end = min((step + 1) * order.batch_size, order.samples)
        pool = order.pool(step)
        assert pool.tolist() == read[end - len(pool) : end].tolist()
        assert set(order.batch(step).tolist()) <= set(pool.tolist())
        needed = len(shard_of(order, order.batch(step))) + 2 * order.window_shards
        assert len(shard_of(order, pool)) <= needed


def test_the_first_batches_need_one_more_shard_each() -> None:
    order = EpochOrder(starts_of([100] * 40), 16, seed=0, epoch=0, window_shards=10)
    for step in range(10):
        assert shard_of(order, order.batch(step)) <= set(order.shards[: step + 1].tolist())
    assert len(shard_of(order, order.batch(15))) > 5


def test_a_window_is_shuffled_uniformly() -> None:
    """Over many epochs each sample is found at each place of its window equally often."""
    counts = np.zeros((12, 12), np.int64)
    for epoch in range(1200):
        counts[np.arange(12), EpochOrder(starts_of([12]), 12, seed=7, epoch=epoch).batch(0)] += 1
    assert ((counts - 100) ** 2 / 100).sum() < 184.7  # chi-square, 121 degrees of freedom, p = 0.0002


def test_the_order_never_changes_between_versions() -> None:
    """Runs resume with newer versions; a change here must count up the pipeline's RESULT_FORMAT."""
    order = EpochOrder(starts_of([3, 2, 4]), 3, seed=1, epoch=2, window_shards=2)
    assert stream(order, 1) == [7, 8, 6, 3, 5, 4, 2, 1, 0]


def test_every_sample_of_every_epoch_has_its_own_random_numbers() -> None:
    keys = [(seed, epoch, sample) for seed in (0, 1, 2**63) for epoch in range(4) for sample in range(50)]
    draws = [tuple(sample_seed(*key).integers(2**62, size=3)) for key in keys]
    assert len(set(draws)) == len(keys)
    assert draws == [tuple(sample_seed(*key).integers(2**62, size=3)) for key in keys]


def test_first_draws_of_neighbouring_samples_are_uniform() -> None:
    draws = np.array([sample_seed(0, 0, sample).random() for sample in range(2000)])
    counts, _ = np.histogram(draws, bins=10, range=(0, 1))
    assert ((counts - 200) ** 2 / 200).sum() < 27.9  # chi-square, 9 degrees of freedom, p = 0.001
    assert abs(np.corrcoef(draws[:-1], draws[1:])[0, 1]) < 0.08
