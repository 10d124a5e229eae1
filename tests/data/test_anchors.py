"""Anchors: as good as they can be, and the same every time."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from made_datasets import scenes
from tiny_mixture import open_mixture, write_sources

from yolo_dist.data.anchors import kmeans_anchors, letterboxed_sizes, training_sizes
from yolo_dist.data.image import letterbox
from yolo_dist.errors import DataError


def around(
    centres: Sequence[tuple[float, float]], each: int, spread: float = 0.03
) -> np.ndarray[tuple[int, int], np.dtype[np.float32]]:
    generator = np.random.default_rng(0)
    return np.concatenate([np.array(centre) * generator.normal(1, spread, (each, 2)) for centre in centres]).astype(
        np.float32
    )


def test_clear_clusters_are_found() -> None:
    centres = [(10, 14), (40, 20), (60, 80), (150, 90), (30, 200), (300, 280)]
    anchors = kmeans_anchors(around(centres, 100), 6)
    expected = sorted(centres, key=lambda size: size[0] * size[1])
    np.testing.assert_allclose(anchors.sizes, expected, rtol=0.04)
    assert anchors.mean_iou > 0.94
    assert anchors.best_possible_recall == 1


def test_they_fit_better_than_published_ones_for_other_data() -> None:
    sizes = around([(20, 20), (35, 25), (50, 60)], 200, spread=0.4).clip(2)
    coco = np.array([(10, 14), (23, 27), (37, 58), (81, 82), (135, 169), (344, 319)], np.float32)
    common = np.minimum(sizes[:, None], coco).prod(axis=2)
    coco_iou = (common / (sizes.prod(axis=1)[:, None] + coco.prod(axis=1) - common)).max(axis=1).mean()
    assert kmeans_anchors(sizes, 6).mean_iou > coco_iou + 0.05


def test_the_same_seed_gives_the_same_anchors() -> None:
    sizes = around([(20, 20), (35, 25), (50, 60)], 100, spread=0.4).clip(2)
    first, again = kmeans_anchors(sizes, 5, seed=3), kmeans_anchors(sizes, 5, seed=3)
    np.testing.assert_array_equal(first.sizes, again.sizes)


@settings(deadline=None, max_examples=20)
@given(npst.arrays(np.float32, st.tuples(st.integers(1, 40), st.just(2)), elements=st.floats(0, 608, width=32)))
def test_any_boxes_give_as_many_anchors_as_asked_sorted_by_area(
    sizes: np.ndarray[tuple[int, int], np.dtype[np.float32]],
) -> None:
    anchors = kmeans_anchors(sizes, 6)
    assert anchors.sizes.shape == (6, 2)
    assert np.isfinite(anchors.sizes).all()
    assert (anchors.sizes >= 1).all()
    assert (np.diff(anchors.sizes.prod(axis=1)) >= 0).all()
    assert 0 < anchors.mean_iou <= 1.000001


def test_few_boxes_are_all_anchors() -> None:
    sizes = np.array([(10, 20), (10, 20), (50, 40)], np.float32)
    anchors = kmeans_anchors(sizes, 4)
    assert anchors.mean_iou == pytest.approx(1)
    assert anchors.sizes.tolist() == [[10, 20], [15, 30], [50, 40], [75, 60]]


def test_no_boxes_are_an_error() -> None:
    with pytest.raises(DataError, match="anchors need at least one box"):
        kmeans_anchors(np.zeros((0, 2), np.float32), 6)


def test_the_cfg_line_is_what_darknet_reads() -> None:
    sizes = np.array([(50.4, 40), (10, 20.6)], np.float32)
    assert kmeans_anchors(sizes, 2).cfg_line() == "anchors = 10,21, 50,40"


def test_sizes_of_a_mixture_come_as_often_as_training_shows_them(tmp_path: Path) -> None:
    """One image in four is from home, and all have as many boxes: so is one box in four, evenly from all."""
    write_sources(tmp_path)
    mixture = open_mixture(tmp_path, weights=(0.75, 0.25))
    street, home = (letterboxed_sizes(source, (64, 64)) for source in mixture.sources)
    found = [tuple(size) for size in training_sizes(mixture, (64, 64)).tolist()]
    counts = Counter(found)
    assert set(counts) == {tuple(size) for size in np.concatenate([street, home]).tolist()}
    drawn = {name: len(found) * share for name, share in (("street", 0.75), ("home", 0.25))}
    for size, count in counts.items():
        expected = drawn["street"] * share_of(size, street) + drawn["home"] * share_of(size, home)
        assert abs(count - expected) <= 20


def share_of(size: tuple[float, ...], sizes: np.ndarray[tuple[int, int], np.dtype[np.float32]]) -> float:
    return float((sizes == np.array(size, np.float32)).all(axis=1).mean())


def test_sizes_of_one_dataset_are_all_there_are(tmp_path: Path) -> None:
    shards = scenes(tmp_path, images=5, width=64, height=96)
    assert np.array_equal(training_sizes(shards, (64, 64)), letterboxed_sizes(shards, (64, 64)))


def test_sizes_are_those_the_network_sees(tmp_path: Path) -> None:
    shards = scenes(tmp_path, images=5, width=64, height=96)
    expected = []
    for sample in shards:
        _, box = letterbox(np.zeros((sample.height, sample.width, 3), np.uint8), (128, 96))
        xyxy = box.forward(sample.boxes.xyxy)
        expected.append(xyxy[:, 2:] - xyxy[:, :2])
    np.testing.assert_allclose(letterboxed_sizes(shards, (128, 96)), np.concatenate(expected), atol=1e-4)
