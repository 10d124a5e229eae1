"""The order of a mixture: exact shares, epochs of each source one after another, nothing about the workers."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from yolo_dist.data.mixture_order import MixtureOrder, apportion
from yolo_dist.data.order import EpochOrder, share_of

Starts = NDArray[np.int64]


def batch_indices(order: MixtureOrder, step: int, rank: int, world_size: int) -> NDArray[np.int64]:
    """One rank's share of a global batch."""
    batch = order.batch(step)
    return batch[share_of(len(batch), rank, world_size)]


def starts_of(rows: list[int]) -> Starts:
    return np.cumsum([0, *rows], dtype=np.int64)


weights = st.floats(0.01, 100)
sources = st.tuples(st.lists(st.integers(1, 9), min_size=1, max_size=5).map(starts_of), weights)


@st.composite
def orders(draw: st.DrawFn) -> MixtureOrder:
    starts, weights = zip(*draw(st.lists(sources, min_size=2, max_size=4)), strict=True)
    size, seed, epoch = draw(st.integers(1, 40)), draw(st.integers(0, 2**40)), draw(st.integers(0, 100))
    return MixtureOrder(starts, weights, size, seed, epoch, shuffle=draw(st.booleans()), window_shards=2)


def again(order: MixtureOrder, epoch: int) -> MixtureOrder:
    """Another epoch, or the same made anew."""
    starts, weights, shuffle = order.starts, order.weights, order.shuffle
    return MixtureOrder(starts, weights, order.batch_size, order.seed, epoch, shuffle=shuffle, window_shards=2)


def epoch_of(epoch: int, weights: tuple[float, ...] = (0.7, 0.3), batch_size: int = 8) -> MixtureOrder:
    """A source of 6 samples in two shards, and one of 20 in four."""
    return MixtureOrder([starts_of([4, 2]), starts_of([5] * 4)], weights, batch_size, seed=3, epoch=epoch)


def sources_of(order: MixtureOrder, samples: NDArray[np.int64]) -> list[int]:
    return [int(source) for source in np.searchsorted(np.cumsum(order.sizes), samples, side="right")]


@given(st.lists(weights, min_size=1, max_size=4), st.integers(0, 10**9))
def test_draws_are_shared_out_exactly_to_one_sample(weights: list[float], count: int) -> None:
    counts, exact = apportion(count, weights), [count * weight / sum(weights) for weight in weights]
    assert sum(counts) == count
    assert all(abs(own - share) < 1 + 1e-6 for own, share in zip(counts, exact, strict=True))


@given(st.lists(weights, min_size=1, max_size=6), st.integers(0, 10**6))
def test_no_draw_is_taken_back(weights: list[float], count: int) -> None:
    before, after = apportion(count, weights), apportion(count + 1, weights)
    assert sorted(b - a for a, b in zip(before, after, strict=True)) == [0] * (len(weights) - 1) + [1]


def test_every_batch_holds_the_sources_in_proportion_to_their_weights() -> None:
    order = MixtureOrder([starts_of([50]), starts_of([150])], (0.7, 0.3), 10, seed=0, epoch=4)
    assert [Counter(sources_of(order, order.batch(step))) for step in range(order.steps)] == [{0: 7, 1: 3}] * 20


@settings(deadline=None)
@given(orders())
def test_over_all_steps_the_shares_are_exact_to_one_sample(order: MixtureOrder) -> None:
    drawn = [source for step in range(order.steps) for source in sources_of(order, order.batch(step))]
    assert len(drawn) == order.samples == sum(order.sizes)
    for source, weight in enumerate(order.weights):
        share = order.samples * weight / sum(order.weights)
        assert abs(drawn.count(source) - share) < 2 + 1e-6  # one at the beginning of the epoch, one at its end


def test_each_source_goes_through_its_own_epochs_one_after_another() -> None:
    """What a source gives over three epochs of the mixture is its own epochs, whole and in turn."""
    drawn: list[tuple[int, int]] = []
    for order in map(epoch_of, range(3)):
        for step in range(order.steps):
            drawn += zip(order.epochs(step).tolist(), order.batch(step).tolist(), strict=True)
    small = [(epoch, sample) for epoch, sample in drawn if sample < 6]
    assert len(small) == round(0.7 * 78)
    by_epoch = [[sample for own, sample in small if own == epoch] for epoch in range(9)]
    assert all(sorted(samples) == list(range(6)) for samples in by_epoch)
    large = [(epoch, sample - 6) for epoch, sample in drawn if sample >= 6]
    assert sorted(sample for epoch, sample in large if epoch == 0) == list(range(20))


def test_a_source_is_drawn_in_the_order_that_it_would_have_alone() -> None:
    order = epoch_of(0)
    drawn = [set(order.batch(step)[order.batch(step) >= 6] - 6) for step in range(order.steps)]
    alone = EpochOrder(starts_of([5] * 4), 2, seed=3, epoch=0)
    expected = np.concatenate([alone.batch(step) for step in range(alone.steps)]).tolist()
    for samples in drawn:
        assert samples == set(expected[: len(samples)])
        del expected[: len(samples)]


@settings(deadline=None)
@given(orders())
def test_no_sample_has_the_same_epoch_twice(order: MixtureOrder) -> None:
    """So its augmentation, which derives from both, never repeats."""
    following = again(order, order.epoch + 1)
    draws = [
        pair
        for one in (order, following)
        for step in range(one.steps)
        for pair in zip(one.epochs(step).tolist(), one.batch(step).tolist(), strict=True)
    ]
    assert len(set(draws)) == len(draws)


@settings(deadline=None)
@given(orders(), st.integers(1, 17))
def test_global_batches_are_the_same_for_every_world_size(order: MixtureOrder, world_size: int) -> None:
    for step in range(order.steps):
        shares = [batch_indices(order, step, rank, world_size) for rank in range(world_size)]
        assert np.concatenate(shares).tolist() == order.batch(step).tolist()


@settings(deadline=None)
@given(orders(), st.data())
def test_a_step_needs_no_step_before_it(order: MixtureOrder, data: st.DataObject) -> None:
    step = data.draw(st.integers(0, order.steps - 1))
    fresh = again(order, order.epoch)
    for earlier in range(step):
        order.batch(earlier)
    for ask in (MixtureOrder.batch, MixtureOrder.epochs, MixtureOrder.pool, MixtureOrder.shards_from):
        assert ask(order, step).tolist() == ask(fresh, step).tolist()
    assert order.window(step) == fresh.window(step)


def test_epochs_and_seeds_give_different_orders() -> None:
    assert epoch_of(0).batch(0).tolist() != epoch_of(1).batch(0).tolist()
    assert epoch_of(0).batch(0).tolist() == epoch_of(0).batch(0).tolist()


def test_the_sources_are_mixed_within_a_batch() -> None:
    order = MixtureOrder([starts_of([40]), starts_of([40])], (1, 1), 40, seed=0, epoch=0)
    first_half = sources_of(order, batch_indices(order, 0, rank=0, world_size=2))
    assert 5 < sum(first_half) < 15


def test_without_shuffling_sources_and_samples_keep_their_order() -> None:
    order = MixtureOrder([starts_of([2, 2]), starts_of([6])], (1, 1), 4, seed=0, epoch=0, shuffle=False)
    assert [order.batch(step).tolist() for step in range(order.steps)] == [[0, 1, 4, 5], [2, 3, 6, 7], [0, 8]]


@settings(deadline=None)
@given(orders())
def test_partners_of_a_batch_include_it_and_come_from_the_same_sources(order: MixtureOrder) -> None:
    for step in range(order.steps):
        batch, pool = order.batch(step), order.pool(step)
        assert set(batch.tolist()) <= set(pool.tolist())
        assert set(sources_of(order, batch)) == set(sources_of(order, pool))


def test_at_the_beginning_of_an_own_epoch_partners_come_from_the_one_before() -> None:
    order = epoch_of(1, weights=(0.5, 0.5), batch_size=2)
    step = next(step for step in range(1, order.steps) if order.epochs(step).max() > order.epochs(step - 1).max())
    small = order.pool(step)[order.pool(step) < 6]
    assert set(small.tolist()) == set(range(6))


@settings(deadline=None)
@given(orders())
def test_what_an_epoch_still_needs_is_known_at_every_step(order: MixtureOrder) -> None:
    starts = np.concatenate([[0], np.cumsum(np.concatenate([np.diff(own) for own in order.starts]))])
    for step in range(order.steps):
        left = np.concatenate([order.batch(later) for later in range(step, order.steps)])
        shards = np.searchsorted(starts, left, side="right") - 1
        needed = order.shards_from(step).tolist()
        assert set(shards.tolist()) <= set(needed)
        assert len(set(needed)) == len(needed)


@settings(deadline=None)
@given(orders())
def test_within_a_window_no_shard_is_needed_that_was_not_needed_at_its_beginning(order: MixtureOrder) -> None:
    """So it is enough to tell what is needed when a window begins."""
    told, window = set[int](), None
    for step in range(order.steps):
        needed = set(order.shards_from(step).tolist())
        if order.window(step) != window:
            told, window = needed, order.window(step)
        assert needed <= told


@pytest.mark.parametrize("step", [-1, 4])
def test_a_step_outside_the_epoch_is_refused(step: int) -> None:
    with pytest.raises(IndexError, match="epoch of 4"):
        epoch_of(0).batch(step)


def test_the_order_never_changes_between_versions() -> None:
    """Runs resume with newer versions; a change here must count up the pipeline's RESULT_FORMAT."""
    order = MixtureOrder([starts_of([3]), starts_of([2, 4])], (0.6, 0.4), 5, seed=1, epoch=2)
    assert [order.batch(step).tolist() for step in range(order.steps)] == [[0, 3, 0, 8, 1], [6, 2, 1, 5]]
