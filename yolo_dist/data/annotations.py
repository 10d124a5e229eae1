"""What an image's objects are inside this package; formats convert to it at the edge."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

LARGEST_POSITION = 1e7
"""Pixels; float32 holds no half pixels beyond."""

ANY_CLASS = -1
"""Label of a box to ignore whatever is detected in it: a region, not an object."""


@dataclass(frozen=True)
class Boxes:
    """The objects of one image.

    Attributes:
        xyxy: left, top, right, bottom in pixels, float32 [n, 4].
        labels: class numbers, int32 [n]; `ANY_CLASS` only with `ignore`.
        ignore: crowds, ignored regions and difficult objects, bool [n]: metrics neither count nor punish them,
            losses skip them.
    """

    xyxy: NDArray[np.float32] = field(default_factory=lambda: np.zeros((0, 4), np.float32))
    labels: NDArray[np.int32] = field(default_factory=lambda: np.zeros(0, np.int32))
    ignore: NDArray[np.bool_] = field(default_factory=lambda: np.zeros(0, np.bool_))

    def __len__(self) -> int:
        return len(self.labels)

    def select(self, index: NDArray[np.bool_] | NDArray[np.int64]) -> "Boxes":
        """The boxes that a mask or index array picks."""
        return Boxes(self.xyxy[index], self.labels[index], self.ignore[index])


class Reason(StrEnum):
    """Why a box or an image is left out of a conversion, or in doubt; the words the manifest uses."""

    UNKNOWN_CLASS = "unknown class"
    BAD_NUMBER = "bad number"
    ZERO_AREA = "zero area"
    OUTSIDE = "outside the image"
    IMAGE_MISSING = "image missing"
    IMAGE_UNREADABLE = "image unreadable"
    ANNOTATION_UNREADABLE = "annotation unreadable"
    SIZE_DIFFERS = "image size differs from its annotation"
    STORED_TURNED = "turned by EXIF, annotated either way"


@dataclass(frozen=True)
class Rejection:
    """A box or image that cannot be used, or perhaps should not.

    Attributes:
        reason: the kind of mistake, by which a manifest counts.
        place: file and position inside it, relative to the dataset's root.
        detail: what was found there.
    """

    reason: Reason
    place: str
    detail: str = ""

    def __str__(self) -> str:
        return f"{self.place}: {self.detail or self.reason}"


@dataclass
class BoxCollector:
    """Gathers one image's boxes while a format parses them; what cannot be used becomes a `Rejection`."""

    xyxy: list[tuple[float, float, float, float]] = field(default_factory=list)
    labels: list[int] = field(default_factory=list)
    ignore: list[bool] = field(default_factory=list)
    rejected: list[Rejection] = field(default_factory=list)

    def add(self, xyxy: tuple[float, float, float, float], label: int, ignore: bool, place: str) -> None:
        """Keep a box, unless a number cannot be a position or a side is not positive."""
        if not all(abs(value) < LARGEST_POSITION for value in xyxy):
            self.reject(Reason.BAD_NUMBER, place, f"box {_numbers(xyxy)} is not finite and of sensible size")
        elif xyxy[2] <= xyxy[0] or xyxy[3] <= xyxy[1]:
            self.reject(Reason.ZERO_AREA, place, f"box {_numbers(xyxy)} has no area")
        else:
            self.xyxy.append(xyxy)
            self.labels.append(label)
            self.ignore.append(ignore)

    def reject(self, reason: Reason, place: str, detail: str) -> None:
        """Count a box that cannot be used."""
        self.rejected.append(Rejection(reason, place, detail))

    def finish(self) -> tuple[Boxes, tuple[Rejection, ...]]:
        """The boxes kept and those rejected."""
        boxes = Boxes(
            np.array(self.xyxy, np.float32).reshape(-1, 4),
            np.array(self.labels, np.int32),
            np.array(self.ignore, np.bool_),
        )
        return boxes, tuple(self.rejected)


def clip_boxes(boxes: Boxes, limits: NDArray[np.float32]) -> tuple[Boxes, NDArray[np.bool_]]:
    """Boxes cut at the borders of their images.

    Args:
        boxes: in pixels.
        limits: width, height, width, height of each box's image, float32 [n, 4].

    Returns:
        The cut boxes, and which of them have something left, bool [n].
    """
    clipped = np.clip(boxes.xyxy, 0, limits)
    inside = (clipped[:, 2] > clipped[:, 0]) & (clipped[:, 3] > clipped[:, 1])
    return Boxes(clipped, boxes.labels, boxes.ignore), inside


def outside_rejection(xyxy: NDArray[np.float32], size: tuple[int, int], place: str) -> Rejection:
    """Of a box, float32 [4], that lies outside its image of `size` (width, height)."""
    return Rejection(Reason.OUTSIDE, place, f"box {_numbers(xyxy)} is outside the image, {size[0]}×{size[1]}")


def _numbers(xyxy: Iterable[float]) -> str:
    return ",".join(f"{value:g}" for value in xyxy)
