"""A mixture is one sequence of images with joint labels, and so the loader takes it."""

import pickle
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from tiny_mixture import JOINT, open_mixture
from upath import UPath

from yolo_dist.data.annotations import ANY_CLASS, Boxes
from yolo_dist.data.augment import AugmentConfig
from yolo_dist.data.loader import Batch, Loader, evaluation_batches
from yolo_dist.data.mixture import Mixture, first_of_each, known_classes, open_images, place_of, same_source
from yolo_dist.data.shards import Sample, ShardSet, open_split
from yolo_dist.errors import DataError

SIZE = (64, 64)
MOSAIC = AugmentConfig(mosaic=1)


@pytest.fixture(scope="module")
def street(mixture_folder: Path) -> ShardSet:
    return open_split(mixture_folder / "shards" / "street", "train")


@pytest.fixture(scope="module")
def home(mixture_folder: Path) -> ShardSet:
    return open_split(mixture_folder / "shards" / "home", "train")


def sources_in(batch: Batch) -> list[str]:
    return [image_id.partition("/")[0] for image_id in batch.image_ids]


def test_the_images_of_the_sources_follow_one_another(mixture: Mixture, street: ShardSet, home: ShardSet) -> None:
    assert len(mixture) == len(street) + len(home) == 16
    assert mixture.bounds.tolist() == [0, 6, 16]
    assert mixture.starts.tolist() == [0, 6, 16]
    for number, (ours, theirs) in enumerate(zip(mixture, [*street, *home], strict=True)):
        name = "street" if number < 6 else "home"
        assert ours.image_id == f"{name}/{theirs.image_id}"
        assert bytes(ours.image) == bytes(theirs.image)
        assert np.array_equal(ours.boxes.xyxy, theirs.boxes.xyxy)
    assert mixture[-1].image_id == mixture[15].image_id == mixture[14:][1].image_id
    with pytest.raises(IndexError, match="image 16 of 16"):
        mixture[16]


def test_labels_are_positions_in_the_joint_classes(mixture: Mixture) -> None:
    assert mixture.classes == JOINT
    labels = [sorted(sample.boxes.labels.tolist()) for sample in mixture]
    assert labels == [[0, 1]] * 6 + [[1, 2]] * 10
    assert mixture.known.tolist() == [[True, True, False], [False, True, True]]


def test_regions_of_any_class_stay(mixture: Mixture, monkeypatch: pytest.MonkeyPatch) -> None:
    region = Boxes(np.array([[0, 0, 9, 9]], np.float32), np.array([ANY_CLASS], np.int32), np.array([True]))
    monkeypatch.setattr(ShardSet, "sample", lambda *_: Sample("a", b"", 9, 9, region))
    assert mixture[8].boxes.labels.tolist() == [ANY_CLASS]


def test_it_travels_as_its_plan(mixture: Mixture) -> None:
    for other in (pickle.loads(pickle.dumps(mixture)), open_images(place_of(mixture))):
        assert other.fingerprint == mixture.fingerprint
        assert [sample.image_id for sample in other] == [sample.image_id for sample in mixture]


def test_one_dataset_travels_as_its_url(street: ShardSet) -> None:
    place = place_of(street)
    assert place == str(street.folder)
    assert open_images(place).fingerprint == street.fingerprint


def test_the_fingerprint_tells_mixtures_apart_but_not_where_they_lie(mixture_folder: Path, mixture: Mixture) -> None:
    assert open_mixture(mixture_folder, weights=(0.5, 0.5)).fingerprint != mixture.fingerprint
    assert open_mixture(mixture_folder, split="val").fingerprint != mixture.fingerprint
    moved = mixture_folder.parent / "elsewhere"
    moved.symlink_to(mixture_folder)
    assert open_mixture(moved).fingerprint == mixture.fingerprint


def test_shards_of_other_classes_than_the_plan_has_are_refused(mixture_folder: Path, mixture: Mixture) -> None:
    joint = mixture.plan.classes
    wrong = type(joint)(joint.names, (joint.numbers[0][:1], joint.numbers[1]))
    with pytest.raises(DataError, match="street/train: has 2 classes, its card 1; convert it again"):
        Mixture.open(type(mixture.plan)(mixture.plan.sources, wrong))


def test_the_first_images_of_each_source_come_in_turn(mixture: Mixture, street: ShardSet) -> None:
    assert first_of_each(mixture, 5) == [0, 6, 1, 7, 2]
    assert sorted(first_of_each(mixture, 99)) == list(range(16))
    assert first_of_each(street, 3) == [0, 1, 2]


def test_what_is_known_on_an_image_is_what_its_source_labels(mixture: Mixture, street: ShardSet) -> None:
    known = known_classes(mixture, np.array([7, 0]))
    assert known is not None
    assert known.tolist() == [[False, True, True], [True, True, False]]
    assert known_classes(street, np.array([0])) is None


def test_partners_are_of_the_same_source(mixture: Mixture, street: ShardSet) -> None:
    others = np.array([15, 5, 6, 0])
    assert same_source(mixture, 3, others).tolist() == [5, 0]
    assert same_source(mixture, 8, others).tolist() == [15, 6]
    assert same_source(street, 3, others).tolist() == others.tolist()


def test_batches_hold_the_sources_by_weight_and_say_what_is_known(mixture: Mixture) -> None:
    for batch in Loader(mixture, SIZE, 8, augment=MOSAIC).batches(0):
        assert Counter(sources_in(batch)) == {"street": 6, "home": 2}
        assert batch.known is not None
        expected = [[True, True, False] if name == "street" else [False, True, True] for name in sources_in(batch)]
        assert batch.known.tolist() == expected
        assert batch.to("cpu").known is not None


def test_a_mosaic_holds_nothing_that_its_source_does_not_know(mixture: Mixture) -> None:
    seen: set[tuple[str, int]] = set()
    for batch in Loader(mixture, SIZE, 8, augment=MOSAIC).batches(0):
        names = [sources_in(batch)[image] for image in batch.image_index.tolist()]
        seen |= set(zip(names, batch.labels.tolist(), strict=True))
    assert seen == {("street", 0), ("street", 1), ("home", 1), ("home", 2)}


def test_a_source_that_is_repeated_is_augmented_anew(mixture: Mixture) -> None:
    batches = list(Loader(mixture, SIZE, 8, augment=AugmentConfig(mosaic=0)).batches(0))
    drawn = [
        (number, batch.images[place].numpy().tobytes())
        for batch in batches
        for place, number in enumerate(batch.samples.tolist())
    ]
    assert len({number for number, _ in drawn}) < len(drawn)
    assert len(set(drawn)) == len(drawn)


@pytest.mark.parametrize("world_size", [2, 3])
def test_batches_do_not_depend_on_the_number_of_workers(mixture: Mixture, world_size: int) -> None:
    def pixels(rank: int, world_size: int) -> list[list[bytes]]:
        loader = Loader(mixture, SIZE, 8, augment=MOSAIC, rank=rank, world_size=world_size)
        return [[image.numpy().tobytes() for image in batch.images] for batch in loader.batches(1)]

    shares = [pixels(rank, world_size) for rank in range(world_size)]
    assert pixels(0, 1) == [[image for share in step for image in share] for step in zip(*shares, strict=True)]


def test_shards_are_brought_by_the_sources_that_have_them(mixture: Mixture, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted: list[tuple[str, list[int]]] = []

    @contextmanager
    def noting(source: ShardSet) -> Iterator[Callable[[Iterable[int]], None]]:
        yield lambda shards: wanted.append((source.folder.parent.name, list(shards)))

    monkeypatch.setattr(ShardSet, "prefetching", noting)
    with mixture.prefetching() as prefetch:
        prefetch([1, 0])
        prefetch([1])
    assert wanted == [("street", [0]), ("home", [0]), ("street", []), ("home", [0])]
    next(Loader(mixture, SIZE, 8, threads=0).batches(0))
    assert wanted[4:] == [("street", [0]), ("home", [0])]


def test_evaluation_takes_every_image_of_every_source_once(mixture: Mixture) -> None:
    batches = list(evaluation_batches(mixture, SIZE, 5))
    assert [number for batch in batches for number in batch.samples.tolist()] == list(range(16))
    assert all(batch.known is not None and len(batch.known) == len(batch) for batch in batches)


def test_where_all_sources_label_all_classes_nothing_is_said(
    mixture_folder: Path, mixture: Mixture, street: ShardSet
) -> None:
    one = mixture.plan.sources[0]
    joint = type(mixture.plan.classes)(street.classes, (np.arange(2, dtype=np.int32),) * 2)
    twice = Mixture.open(type(mixture.plan)((one, one), joint))
    assert all(batch.known is None for batch in Loader(twice, SIZE, 8).batches(0))


def test_a_mixture_in_an_object_store_gives_the_batches_of_one_on_a_disk(
    mixture_folder: Path, mixture: Mixture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("YOLO_DIST_CACHE", str(tmp_path / "cache"))
    store = UPath(f"memory://{tmp_path.name}")
    for path in (mixture_folder / "shards").rglob("*"):
        if path.is_file():
            (store / path.relative_to(mixture_folder / "shards").as_posix()).write_bytes(path.read_bytes())
    sources = [ShardSet.open(store / name / "train") for name in ("street", "home")]
    here, there = (Loader(images, SIZE, 4).batches(1) for images in (mixture, Mixture(mixture.plan, sources)))
    assert all(bool((one.images == other.images).all()) for one, other in zip(here, there, strict=True))
    assert len(list((tmp_path / "cache").glob("*.arrow"))) == 2


@pytest.mark.parametrize(("count", "street_images", "home_images"), [(1, 1, 0), (5, 3, 2), (14, 6, 8), (99, 6, 10)])
def test_the_first_images_come_from_every_source(
    mixture: Mixture, count: int, street_images: int, home_images: int
) -> None:
    few = mixture.first(count)
    for one in (few, pickle.loads(pickle.dumps(few))):
        names = [sample.image_id.partition("/")[0] for sample in one]
        assert names == ["street"] * street_images + ["home"] * home_images
        batches = list(evaluation_batches(one, SIZE, 4))
        assert [name for batch in batches for name in sources_in(batch)] == names
    assert (few.fingerprint == mixture.fingerprint) == (count == 99)
