"""Repeat factors as their paper has them, and an order of repetitions that is the same for any number of workers."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_datasets import jpeg, raw_shards, scenes
from numpy.typing import NDArray

from yolo_dist.data.annotations import ANY_CLASS, Boxes
from yolo_dist.data.augment import AugmentConfig
from yolo_dist.data.balanced_order import REPEAT_STRIDE, BalancedOrder, repeat_factors, repeats_of
from yolo_dist.data.loader import Batch, Loader
from yolo_dist.data.shards import Sample, ShardSet

COMMON, RARE, MIDDLE = 0, 1, 2


def labelled(folder: Path, *labels: list[int], ignored: tuple[int, ...] = ()) -> ShardSet:
    """Images with a box of each label; all boxes of those numbered in `ignored` do not count."""
    samples = []
    folder.mkdir(exist_ok=True)
    for number, own in enumerate(labels):
        xyxy = np.tile(np.array([[2, 2, 20, 20]], np.float32), (len(own), 1))
        ignore = np.full(len(own), number in ignored)
        samples.append(Sample(f"{number}", jpeg(), 60, 40, Boxes(xyxy, np.array(own, np.int32), ignore)))
    return raw_shards(folder, samples)


def test_factors_are_those_of_the_paper(tmp_path: Path) -> None:
    """Of 8 images: class 0 on all but the empty one, 1 on one, 2 on two."""
    shards = labelled(tmp_path, [0], [0, 0, 0], [0], [0], [0, RARE], [0, MIDDLE], [0, MIDDLE, MIDDLE], [])
    rare, middle = (0.5 / (1 / 8)) ** 0.5, (0.5 / (2 / 8)) ** 0.5
    expected = [1, 1, 1, 1, rare, middle, middle, 1]
    assert repeat_factors(shards, 0.5).tolist() == pytest.approx(expected)
    assert repeat_factors(shards, 0.001).tolist() == [1] * 8
    # without a threshold the class in the middle is as often as it is, and the rarer one √2 times
    assert repeat_factors(shards).tolist() == pytest.approx([1, 1, 1, 1, 2**0.5, 1, 1, 1])


def test_objects_to_ignore_make_no_class_rare_and_an_empty_split_has_no_factors(tmp_path: Path) -> None:
    shards = labelled(tmp_path / "some", [0], [0], [RARE], [ANY_CLASS], ignored=(2, 3))
    assert repeat_factors(shards, 1.0).tolist() == pytest.approx([2**0.5, 2**0.5, 1, 1])
    assert repeat_factors(labelled(tmp_path / "none", [], [])).tolist() == [1, 1]


factors = st.lists(st.floats(1, 6), min_size=1, max_size=40).map(np.array)


@given(factors, st.floats(0, 1, exclude_max=True))
def test_every_sample_comes_as_often_as_its_factor_rounded_down_or_up(
    factors: NDArray[np.float64], offset: float
) -> None:
    repeats = repeats_of(factors, offset)
    assert (repeats >= np.floor(factors)).all()
    assert (repeats <= np.floor(factors) + 2).all()  # a point more where their space is a little under 1
    assert repeats.sum() == round(float((factors - np.floor(factors)).sum())) + np.floor(factors).sum()


def test_on_average_a_sample_comes_as_often_as_its_factor() -> None:
    factors = np.array([1.0, 1.25, 3.5, 1.9, 2.35, 1.0])  # fractions that add up to 2
    offsets = (np.arange(2000) + 0.5) / 2000
    mean = np.mean([repeats_of(factors, offset) for offset in offsets], axis=0)
    np.testing.assert_allclose(mean, factors, atol=1e-3)


rows = st.lists(st.integers(1, 9), min_size=1, max_size=6)


@settings(deadline=None, max_examples=50)
@given(rows, st.integers(1, 20), st.integers(0, 2**40), st.integers(0, 99), st.data())
def test_an_epoch_holds_every_repetition_once_each_with_randomness_of_its_own(
    rows: list[int], batch_size: int, seed: int, epoch: int, data: st.DataObject
) -> None:
    starts = np.cumsum([0, *rows], dtype=np.int64)
    factors = np.array(data.draw(st.lists(st.floats(1, 4), min_size=sum(rows), max_size=sum(rows))))
    order = BalancedOrder(starts, factors, batch_size, seed, epoch, window_shards=2)
    samples = np.concatenate([order.batch(step) for step in range(order.steps)])
    epochs = np.concatenate([order.epochs(step) for step in range(order.steps)])
    counts = Counter(samples.tolist())
    assert [counts[number] for number in range(sum(rows))] == order.repeats.tolist()
    assert len(samples) == order.samples
    assert len(set(zip(samples.tolist(), epochs.tolist(), strict=True))) == order.samples
    assert set((epochs % REPEAT_STRIDE).tolist()) == {epoch}
    for step in range(order.steps):
        needed = {int(shard) for shard in np.searchsorted(starts, order.batch(step), side="right") - 1}
        assert needed <= set(order.shards_from(step).tolist())
        assert set(order.batch(step).tolist()) <= set(order.pool(step).tolist())
    again = BalancedOrder(starts, factors, batch_size, seed, epoch + 1, window_shards=2)
    assert (again.samples, again.steps) == (order.samples, order.steps)


def signature(batches: list[Batch]) -> list[tuple[str, bytes]]:
    return [
        (image_id, batch.images[number].numpy().tobytes())
        for batch in batches
        for number, image_id in enumerate(batch.image_ids)
    ]


def test_batches_are_the_same_for_any_number_of_workers_and_repetitions_look_different(tmp_path: Path) -> None:
    shards = scenes(tmp_path, images=6, width=64, height=64)
    factors = np.array([1, 3, 1, 1, 2, 1.0])

    def loader(rank: int, workers: int) -> Loader:
        options = AugmentConfig(mosaic=0.3, translate=0.2)
        return Loader(shards, (64, 64), 4, augment=options, rank=rank, world_size=workers, threads=0, factors=factors)

    alone = list(loader(0, 1).batches(1))
    assert loader(0, 1).samples == 9
    for workers in (2, 3):
        shares = [list(loader(rank, workers).batches(1)) for rank in range(workers)]
        together = [signature([share[step] for share in shares]) for step in range(3)]
        assert together == [signature([batch]) for batch in alone]
    assert signature(list(loader(0, 1).batches(1, start_step=1))) == signature(alone[1:])
    assert Counter(name for name, _ in signature(alone)) == {
        sample.image_id: int(factor) for sample, factor in zip(shards, factors, strict=True)
    }
    assert len({pixels for _, pixels in signature(alone)}) == 9
