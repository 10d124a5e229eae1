"""Pascal VOC annotations: one XML file an image (Everingham et al. 2010, "The Pascal Visual Object Classes Challenge").

Boxes are xmin, ymin, xmax, ymax in pixels, counted from 1, both ends inside the box.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from xml.etree import ElementTree

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
from yolo_dist.errors import AnnotationError, DataError

_SIDES = ("xmin", "ymin", "xmax", "ymax")


@dataclass(frozen=True)
class Annotation:
    """What one file says: boxes, what was rejected, and (width, height) where given."""

    boxes: Boxes
    rejected: tuple[Rejection, ...]
    size: tuple[int, int] | None


def parse(text: str, classes: Mapping[str, int], place: str = "annotation") -> Annotation:
    """Boxes of one image; `difficult` objects come back with ignore set.

    Raises:
        AnnotationError: not well-formed XML, or it declares entities, which annotations have no use for (and by
            which a small file can grow without bound); names the line.
    """
    if "<!ENTITY" in text:
        raise AnnotationError(f"{place}: declares XML entities; remove the declaration")
    try:
        root = ElementTree.fromstring(text)
    except ElementTree.ParseError as error:
        line, column = error.position
        raise AnnotationError(f"{place}:{line}: column {column + 1}: not well-formed XML; restore the file") from None
    collector = BoxCollector()
    for number, item in enumerate(root.iter("object"), start=1):
        _add_object(item, classes, f"{place}: object {number}", collector)
    boxes, rejected = collector.finish()
    return Annotation(boxes, rejected, _size(root))


def _add_object(item: ElementTree.Element, classes: Mapping[str, int], place: str, collector: BoxCollector) -> None:
    name = (item.findtext("name") or "").strip()
    if name not in classes:
        collector.reject(Reason.UNKNOWN_CLASS, place, f"class {name!r} is not in the card")
        return
    texts = [item.findtext(f"bndbox/{side}") or "" for side in _SIDES]
    try:
        left, top, right, bottom = (float(text) for text in texts)
    except ValueError:
        collector.reject(Reason.BAD_NUMBER, place, f"box {','.join(texts)} is not four numbers")
        return
    if right <= left or bottom <= top:
        collector.reject(Reason.ZERO_AREA, place, f"box {','.join(texts)} has no area")
        return
    difficult = (item.findtext("difficult") or "0").strip() == "1"
    collector.add((left - 1, top - 1, right, bottom), classes[name], difficult, place)


def _size(root: ElementTree.Element) -> tuple[int, int] | None:
    """(width, height); None where a tool left them out or wrote zeros."""
    texts = [(root.findtext(f"size/{side}") or "").strip() for side in ("width", "height")]
    if not all(text.isdecimal() and int(text) > 0 for text in texts):
        return None
    return int(texts[0]), int(texts[1])


@annotation_format("voc_xml")
def read(root: UPath, source: SplitSource, card: Card) -> Iterator[AnnotatedImage]:
    """The images of a split: those of the list, or all that have an annotation file.

    Raises:
        DataError: a folder or the list is missing.
    """
    files = image_files(root, source)
    annotations = annotation_files(root, source, ".xml")
    names = listed_images(root, source, files) if source.list else sorted(annotations)
    classes = card.class_numbers()
    for name in names:
        if name in files:
            place = image_place(source, name, files[name])
            file = annotations.get(name, f"{source.annotations}/{name}.xml")
            yield _read_one(root, name, files[name], place, file, classes)
        else:
            yield missing_image(name, source)


def _read_one(
    root: UPath, name: str, file: UPath, place: str, annotation_place: str, classes: Mapping[str, int]
) -> AnnotatedImage:
    try:
        annotation = parse(read_text(root, annotation_place), classes, annotation_place)
    except DataError as error:
        return unreadable_annotation(name, place, error)
    return AnnotatedImage(name, file, place, annotation.boxes, annotation.rejected, size=annotation.size)
