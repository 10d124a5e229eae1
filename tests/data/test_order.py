"""The order is a pure function: a thousand worlds are checked here without a process."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from yolo_dist.data.order import EpochOrder, batch_indices, sample_seed

orders = st.builds(
    EpochOrder,
    samples=st.integers(1, 300),
    batch_size=st.integers(1, 64),
    seed=st.integers(0, 2**40),
    epoch=st.integers(0, 1000),
    shuffle=st.booleans(),
)


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
    order = EpochOrder(samples=101, batch_size=8, seed=3, epoch=5)
    stop = step % order.steps
    resumed = stream(order, before, 0, stop) + stream(order, after, stop)
    assert resumed == stream(order, 1)


def test_epochs_and_seeds_give_different_orders_and_the_same_ones_give_the_same() -> None:
    first = EpochOrder(100, 10, seed=0, epoch=0)
    assert stream(first, 1) == stream(EpochOrder(100, 10, seed=0, epoch=0), 1)
    assert stream(first, 1) != stream(EpochOrder(100, 10, seed=0, epoch=1), 1)
    assert stream(first, 1) != stream(EpochOrder(100, 10, seed=1, epoch=0), 1)


def test_without_shuffling_the_order_is_that_of_the_shards() -> None:
    assert stream(EpochOrder(10, 4, seed=0, epoch=3, shuffle=False), 2) == list(range(10))


@pytest.mark.parametrize("step", [-1, 3])
def test_a_step_outside_the_epoch_is_refused(step: int) -> None:
    with pytest.raises(IndexError, match="epoch of 3"):
        EpochOrder(10, 4, seed=0, epoch=0).batch(step)


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
