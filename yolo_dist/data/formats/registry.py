"""What an annotation format is: a function from a split's files to annotated images."""

import difflib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

from upath import UPath

from yolo_dist.data.annotations import Boxes, Rejection
from yolo_dist.data.card import Card, SplitSource
from yolo_dist.errors import ConfigError


class ImageSource(Protocol):
    """Where the bytes of an image come from: a path, or a generated scene."""

    def read_bytes(self) -> bytes:
        """The encoded image."""


@dataclass(frozen=True)
class AnnotatedImage:
    """One image of a split before conversion.

    Attributes:
        image_id: unique in the split.
        source: where its bytes are; None if they are not to be had (`problem` says why).
        place: the image's name relative to the dataset's root, for messages.
        boxes: its objects; not yet cut at the border.
        rejected: boxes that cannot be used.
        problem: why the whole image cannot be used.
        relative: boxes are fractions of the image's width and height, not pixels.
        size: (width, height) in pixels that its annotation claims, where it does.
    """

    image_id: str
    source: ImageSource | None
    place: str
    boxes: Boxes
    rejected: tuple[Rejection, ...] = ()
    problem: Rejection | None = None
    relative: bool = False
    size: tuple[int, int] | None = None


Reader = Callable[[UPath, SplitSource, Card], Iterator[AnnotatedImage]]
"""Reads a split below a dataset's root, in an order that does not depend on the file system."""

_readers: dict[str, Reader] = {}


def annotation_format(name: str) -> Callable[[Reader], Reader]:
    """Register a reader under the name that cards use."""

    def register(function: Reader) -> Reader:
        _readers[name] = function
        return function

    return register


def reader(card: Card) -> Reader:
    """The reader of a card's format.

    Raises:
        ConfigError: there is no such format; names the closest.
    """
    if card.format in _readers:
        return _readers[card.format]
    close = difflib.get_close_matches(card.format, _readers) or sorted(_readers)
    problem = f"format: there is no annotation format {card.format!r}; did you mean {' or '.join(close)}?"
    raise ConfigError(f"dataset {card.name}", [problem])
