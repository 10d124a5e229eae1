"""Darknet's own annotations: one text file an image, one box a line.

Columns: class number, centre x, centre y, width, height, the last four as fractions of the image's width and height.
"""

import re
from collections.abc import Iterator

from upath import UPath

from yolo_dist.data.annotations import BoxCollector, Boxes, Reason, Rejection
from yolo_dist.data.card import Card, SplitSource
from yolo_dist.data.formats.file_content import read_text
from yolo_dist.data.formats.folders import (
    annotation_files,
    image_files,
    image_place,
    listed_images,
    missing_image,
    unreadable_annotation,
)
from yolo_dist.data.formats.registry import AnnotatedImage, annotation_format
from yolo_dist.errors import DataError

_CLASS_NUMBER = re.compile(r"\d{1,9}")


def parse(text: str, classes: int, place: str = "annotation") -> tuple[Boxes, tuple[Rejection, ...]]:
    """Boxes of one image as fractions of its width and height, and what was rejected, by line.

    Args:
        text: the file.
        classes: how many there are; larger class numbers are unknown.
        place: the file's name, for messages.
    """
    collector = BoxCollector()
    for number, line in enumerate(text.splitlines(), start=1):
        if line.strip():
            _add_line(line, classes, f"{place}:{number}", collector)
    return collector.finish()


def _add_line(line: str, classes: int, place: str, collector: BoxCollector) -> None:
    columns = line.split()
    if len(columns) != 5 or not _CLASS_NUMBER.fullmatch(columns[0]):
        collector.reject(Reason.BAD_NUMBER, place, f"{line.strip()!r} is not a class number and four numbers")
        return
    label = int(columns[0])
    if label >= classes:
        collector.reject(Reason.UNKNOWN_CLASS, place, f"class {label} is not in the card, which has {classes}")
        return
    try:
        x, y, width, height = (float(column) for column in columns[1:])
    except ValueError:
        collector.reject(Reason.BAD_NUMBER, place, f"{line.strip()!r} is not a class number and four numbers")
        return
    collector.add((x - width / 2, y - height / 2, x + width / 2, y + height / 2), label, False, place)


@annotation_format("yolo_txt")
def read(root: UPath, source: SplitSource, card: Card) -> Iterator[AnnotatedImage]:
    """The images of a split; one without a text file has no objects, as Darknet holds.

    Raises:
        DataError: a folder or the list is missing.
    """
    files = image_files(root, source)
    annotations = annotation_files(root, source, ".txt")
    for name in listed_images(root, source, files):
        if name in files:
            place = image_place(source, name, files[name])
            yield _read_one(root, name, files[name], place, annotations.get(name), len(card.classes))
        else:
            yield missing_image(name, source)


def _read_one(root: UPath, name: str, file: UPath, place: str, annotation: str | None, classes: int) -> AnnotatedImage:
    if annotation is None:
        return AnnotatedImage(name, file, place, Boxes(), relative=True)
    try:
        text = read_text(root, annotation)
    except DataError as error:
        return unreadable_annotation(name, place, error)
    boxes, rejected = parse(text, classes, annotation)
    return AnnotatedImage(name, file, place, boxes, rejected, relative=True)
