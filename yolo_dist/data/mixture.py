"""Several converted datasets as one: their images one after another, their classes joined."""

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, replace
from itertools import accumulate, islice, pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from yolo_dist.data.annotations import Boxes
from yolo_dist.data.joint_classes import JointClasses
from yolo_dist.data.shard_file import Sample, SampleSequence
from yolo_dist.data.shards import OPEN_SHARDS, ShardSet
from yolo_dist.errors import DataError


@dataclass(frozen=True)
class MixtureSource:
    """One dataset of a mixture.

    Attributes:
        name: of its card.
        split: URL of the split's shards.
        weight: share of the training samples that come from it, of the weights' sum.
        max_detections: detections an image and class that its evaluation looks at.
    """

    name: str
    split: str
    weight: float
    max_detections: int = 100


@dataclass(frozen=True)
class MixturePlan:
    """What it takes to open a mixture anywhere."""

    sources: tuple[MixtureSource, ...]
    classes: JointClasses


class Mixture(SampleSequence):
    """The images of several shard sets as one sequence, with joint labels and ids that begin with the source's name.

    Safe to read from several threads. Pickles as its plan and the URLs of its sources.

    Attributes:
        plan: what it was opened from.
        sources: the shard sets.
        bounds: number of the first image of each source, then that of all images; int64 [sources + 1].
        starts: number of the first image of each shard, then that of all images; int64 [shards + 1].
        known: which classes each source labels, bool [sources, classes].
    """

    def __init__(self, plan: MixturePlan, sources: Sequence[ShardSet]) -> None:
        self.plan = plan
        self.sources = tuple(sources)
        self.bounds = np.array([0, *accumulate(map(len, sources))], np.int64)
        rows = [np.diff(source.starts) for source in sources]
        self.starts = np.concatenate([[0], np.concatenate(rows).cumsum()]).astype(np.int64)
        self.known = plan.classes.known

    @classmethod
    def open(cls, plan: MixturePlan) -> "Mixture":
        """The mixture of the shards that a plan names.

        Raises:
            DataError: no finished conversion is where a source should be, or has other classes than its card.
        """
        sources = [ShardSet.open(source.split) for source in plan.sources]
        for shards, numbers in zip(sources, plan.classes.numbers, strict=True):
            if len(shards.classes) != len(numbers):
                raise DataError(
                    f"{shards.folder}: has {len(shards.classes)} classes, its card {len(numbers)}; convert it again"
                )
        return cls(plan, sources)

    def first(self, images: int) -> "Mixture":
        """The mixture of some images alone: the first ones, in turn from every source."""
        taken = self.source_of(np.array(first_of_each(self, images), np.int64))
        counts = np.bincount(taken, minlength=len(self.sources)).tolist()
        return Mixture(self.plan, [source.first(count) for source, count in zip(self.sources, counts, strict=True)])

    @property
    def names(self) -> tuple[str, ...]:
        """Of the sources."""
        return tuple(source.name for source in self.plan.sources)

    @property
    def weights(self) -> tuple[float, ...]:
        """Of the sources, of any sum."""
        return tuple(source.weight for source in self.plan.sources)

    @property
    def classes(self) -> tuple[str, ...]:
        """Joint class names; labels are positions in it."""
        return self.plan.classes.names

    @property
    def fingerprint(self) -> str:
        """Hex sha256 of the sources' fingerprints and of how they are mixed, but not of where they lie."""
        parts = {
            "shards": [source.fingerprint for source in self.sources],
            "sources": [asdict(replace(source, split="")) for source in self.plan.sources],
            "classes": self.classes,
            "numbers": [numbers.tolist() for numbers in self.plan.classes.numbers],
        }
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()

    def source_of(self, numbers: NDArray[np.int64]) -> NDArray[np.int64]:
        """Which source each image is from, int64 [n]."""
        return np.asarray(np.searchsorted(self.bounds, numbers, side="right") - 1)

    @contextmanager
    def prefetching(self) -> Iterator[Callable[[Iterable[int]], None]]:
        """As that of a shard set, for shards numbered through all sources; the first of them all are brought."""
        first = np.cumsum([0, *(len(source.starts) - 1 for source in self.sources)])
        with ExitStack() as stack:
            prefetch = [stack.enter_context(source.prefetching()) for source in self.sources]

            def want(shards: Iterable[int]) -> None:
                next_ones = np.array(list(islice(shards, OPEN_SHARDS)), np.int64)
                for source, (begin, end) in enumerate(pairwise(first)):
                    prefetch[source]((next_ones[(begin <= next_ones) & (next_ones < end)] - begin).tolist())

            yield want

    def __len__(self) -> int:
        return int(self.bounds[-1])

    def sample(self, number: int) -> Sample:
        """Image `number`, from 0, with joint labels and its source's name in its id."""
        source = int(self.source_of(np.array(number)))
        sample = self.sources[source].sample(number - int(self.bounds[source]))
        boxes = sample.boxes
        return replace(
            sample,
            image_id=f"{self.names[source]}/{sample.image_id}",
            boxes=Boxes(boxes.xyxy, self.plan.classes.joint_labels(source, boxes.labels), boxes.ignore),
        )

    def __reduce__(self) -> tuple[Any, tuple[MixturePlan, tuple[ShardSet, ...]]]:
        return Mixture, (self.plan, self.sources)


Images = ShardSet | Mixture
"""The images of a split: of one dataset, or of several."""

Place = str | MixturePlan
"""Where the images of a split lie: the URL of its shards, or the plan of a mixture."""


def open_images(place: Place) -> Images:
    """The images at a place.

    Raises:
        DataError: no finished conversion is there, or its manifest is damaged.
    """
    return ShardSet.open(place) if isinstance(place, str) else Mixture.open(place)


def place_of(images: Images) -> Place:
    """From where the images can be opened again, by any process; all of the split, if these are its first ones."""
    return images.plan if isinstance(images, Mixture) else str(images.folder)


def known_classes(images: Images, numbers: NDArray[np.int64]) -> NDArray[np.bool_] | None:
    """Which classes the source of each image labels, bool [n, classes]; None where every source labels all."""
    if not isinstance(images, Mixture) or images.known.all():
        return None
    return np.asarray(images.known[images.source_of(numbers)])


def same_source(images: Images, number: int, others: NDArray[np.int64]) -> NDArray[np.int64]:
    """Those of some images that come from the same source as image `number`."""
    if not isinstance(images, Mixture):
        return others
    source = int(images.source_of(np.array(number)))
    return np.asarray(others[(images.bounds[source] <= others) & (others < images.bounds[source + 1])])


def first_of_each(images: Images, count: int) -> list[int]:
    """Numbers of `count` images, fewer where there are fewer: the first ones, in turn from every source."""
    if not isinstance(images, Mixture):
        return list(range(min(count, len(images))))
    places = np.concatenate([np.arange(len(source)) for source in images.sources])
    return [int(number) for number in np.argsort(places, kind="stable")[:count]]
