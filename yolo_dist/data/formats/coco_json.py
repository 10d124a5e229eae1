"""COCO annotations: one JSON file a split (Lin et al. 2014, "Microsoft COCO: Common Objects in Context").

Category ids are sparse; classes are matched by category name. Boxes are left, top, width, height in pixels.
"""

from array import array
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from upath import UPath

from yolo_dist.data.annotations import BoxCollector, Boxes, Reason, Rejection
from yolo_dist.data.card import Card, SplitSource
from yolo_dist.data.formats.file_content import text_chunks
from yolo_dist.data.formats.folders import files_below, noted_size
from yolo_dist.data.formats.json_text import first_character, object_members
from yolo_dist.data.formats.registry import AnnotatedImage, annotation_format
from yolo_dist.errors import AnnotationError

Key = int | str
"""What a file names images and categories by."""


@dataclass(frozen=True)
class ListedImage:
    """One image of the file: its entry, boxes, and what was rejected."""

    image_id: str
    file_name: str
    size: tuple[int, int] | None
    boxes: Boxes
    rejected: tuple[Rejection, ...]


def parse(chunks: Iterable[str], classes: Mapping[str, int], place: str = "annotations") -> Iterator[ListedImage]:
    """Images of a file in its order, those without annotations included; crowds come back with ignore set.

    An annotation whose image the file does not list brings an entry with an empty file name. The file is read entry by
    entry: training labels of 2017 take half a gigabyte, most of it for outlines, which are not read here.

    Args:
        chunks: the file's text in pieces of any size.
        classes: class numbers by name.
        place: the file's name, for messages.

    Raises:
        AnnotationError: not JSON (names line and byte), or a list or key is missing (names the entry).
    """
    first, whole = first_character(chunks)
    if first not in ("{", ""):
        raise AnnotationError(f"{place}: must be an object with images, annotations and categories")
    images: list[tuple[Key, str, tuple[int, int] | None]] = []
    names: dict[Key, Any] = {}
    found = _Annotations()
    missing = ["images", "annotations", "categories"]
    for key, entries in object_members(whole, place):
        if key in missing:
            missing.remove(key)
            for where, item in _entries(entries, key, place):
                if key == "images":
                    images.append((_get(item, "id", where), str(_get(item, "file_name", where)), noted_size(item)))
                elif key == "categories":
                    names[_get(item, "id", where)] = item.get("name")
                else:
                    found.add(_get(item, "image_id", where), item)
    if missing:
        raise _no_list(missing[0], place)
    for image, file_name, size in images:
        yield ListedImage(str(image), file_name, size, *found.boxes(image, names, classes, place))
    listed = {image for image, *_ in images}
    yield from (ListedImage(str(image), "", None, Boxes(), ()) for image in found.rows if image not in listed)


class _Annotations:
    """All annotations of a file, in a few bytes each: categories, which say what they are of, come after them.

    Attributes:
        rows: numbers of each image's annotations.
    """

    def __init__(self) -> None:
        self.rows: dict[Key, array[int]] = defaultdict(lambda: array("q"))
        self._categories: list[Any] = []
        self._numbers: dict[Key, int] = {}
        self._category, self._crowd, self._box = array("q"), array("b"), array("d")
        self._no_box: dict[int, str] = {}

    def add(self, image: Key, item: dict[str, Any]) -> None:
        """Keep an image's next annotation."""
        row = len(self._crowd)
        self.rows[image].append(row)
        self._category.append(self._category_number(item.get("category_id")))
        self._crowd.append(bool(item.get("iscrowd", 0)))
        try:
            left, top, width, height = (float(value) for value in item["bbox"])
        except (KeyError, TypeError, ValueError, OverflowError):
            self._no_box[row] = str(item.get("bbox"))
            left = top = width = height = 0
        self._box.extend((left, top, left + width, top + height))

    def boxes(
        self, image: Key, names: Mapping[Key, Any], classes: Mapping[str, int], place: str
    ) -> tuple[Boxes, tuple[Rejection, ...]]:
        """An image's boxes, and those that cannot be used."""
        collector = BoxCollector()
        for row in self.rows.get(image, ()):
            where = f"{place}: annotations[{row}]"
            category = self._categories[self._category[row]]
            name = names.get(category) if isinstance(category, int | str) else None
            if not isinstance(name, str) or name not in classes:
                collector.reject(Reason.UNKNOWN_CLASS, where, f"category {category} ({name}) is not in the card")
            elif row in self._no_box:
                collector.reject(Reason.BAD_NUMBER, where, f"bbox {self._no_box[row]} is not four numbers")
            else:
                left, top, right, bottom = self._box[4 * row : 4 * row + 4]
                collector.add((left, top, right, bottom), classes[name], bool(self._crowd[row]), where)
        return collector.finish()

    def _category_number(self, category: Any) -> int:
        known = isinstance(category, int | str)
        if known and category in self._numbers:
            return self._numbers[category]
        if known:
            self._numbers[category] = len(self._categories)
        self._categories.append(category)
        return len(self._categories) - 1


def _get(item: dict[str, Any], key: str, place: str) -> Any:
    value = item.get(key)
    if not isinstance(value, int | str):
        raise AnnotationError(f"{place}: {key} must be a number or a name, not {value!r}")
    return value


def _entries(entries: Any, key: str, place: str) -> Iterator[tuple[str, dict[str, Any]]]:
    if not isinstance(entries, Iterator):
        raise _no_list(key, place)
    for number, item in enumerate(entries):
        if not isinstance(item, dict):
            raise _no_list(key, place)
        yield f"{place}: {key}[{number}]", item


def _no_list(key: str, place: str) -> AnnotationError:
    return AnnotationError(f"{place}: {key} must be a list of objects; is this a COCO instances file?")


@annotation_format("coco_json")
def read(root: UPath, source: SplitSource, card: Card) -> Iterator[AnnotatedImage]:
    """The images that the file lists; image ids are COCO's own, as its result files need them.

    Raises:
        DataError: the image folder or the file is missing.
        AnnotationError: the file cannot be read.
    """
    chunks = text_chunks(root, source.annotations)
    folder, present = root / source.images, set(files_below(root, source.images))
    for image in parse(chunks, card.class_numbers(), str(root / source.annotations)):
        place = f"{source.images}/{image.file_name or f'image {image.image_id}'}"
        if image.file_name in present:
            path = folder / image.file_name
            yield AnnotatedImage(image.image_id, path, place, image.boxes, image.rejected, size=image.size)
        else:
            problem = Rejection(Reason.IMAGE_MISSING, place)
            yield AnnotatedImage(image.image_id, None, place, Boxes(), problem=problem)
