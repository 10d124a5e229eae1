"""COCO annotations: one JSON file a split (Lin et al. 2014, "Microsoft COCO: Common Objects in Context").

Category ids are sparse; classes are matched by category name. Boxes are left, top, width, height in pixels.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from upath import UPath

from yolo_dist.data.annotations import BoxCollector, Boxes, Reason, Rejection
from yolo_dist.data.card import Card, SplitSource
from yolo_dist.data.formats.folders import files_below, read_text
from yolo_dist.data.formats.json_text import load_json
from yolo_dist.data.formats.registry import AnnotatedImage, annotation_format
from yolo_dist.errors import AnnotationError


@dataclass(frozen=True)
class ListedImage:
    """One image of the file: its entry, boxes, and what was rejected."""

    image_id: str
    file_name: str
    size: tuple[int, int] | None
    boxes: Boxes
    rejected: tuple[Rejection, ...]


def parse(text: str, classes: Mapping[str, int], place: str = "annotations") -> list[ListedImage]:
    """Images of a file in its order, those without annotations included; crowds come back with ignore set.

    An annotation whose image the file does not list brings an entry with an empty file name.

    Raises:
        AnnotationError: not JSON (names line and byte), or a list or key is missing (names the entry).
    """
    content = _load(text, place)
    images, annotations, categories = (_entries(content, key, place) for key in ("images", "annotations", "categories"))
    names = {_get(item, "id", f"{place}: categories[{n}]"): item.get("name") for n, item in enumerate(categories)}
    collectors: dict[Any, BoxCollector] = defaultdict(BoxCollector)
    for number, item in enumerate(annotations):
        where = f"{place}: annotations[{number}]"
        _add_annotation(item, names, classes, where, collectors[_get(item, "image_id", where)])
    listed = [_listed(item, collectors, f"{place}: images[{number}]") for number, item in enumerate(images)]
    known = {_get(item, "id", place) for item in images}
    return listed + [ListedImage(str(key), "", None, Boxes(), ()) for key in collectors if key not in known]


def _load(text: str, place: str) -> dict[str, Any]:
    content = load_json(text, place)
    if not isinstance(content, dict):
        raise AnnotationError(f"{place}: must be an object with images, annotations and categories")
    return content


def _entries(content: dict[str, Any], key: str, place: str) -> list[dict[str, Any]]:
    entries = content.get(key)
    if not isinstance(entries, list) or not all(isinstance(item, dict) for item in entries):
        raise AnnotationError(f"{place}: {key} must be a list of objects; is this a COCO instances file?")
    return entries


def _get(item: dict[str, Any], key: str, place: str) -> Any:
    value = item.get(key)
    if not isinstance(value, int | str):
        raise AnnotationError(f"{place}: {key} must be a number or a name, not {value!r}")
    return value


def _add_annotation(
    item: dict[str, Any], names: dict[Any, Any], classes: Mapping[str, int], place: str, collector: BoxCollector
) -> None:
    category = item.get("category_id")
    name = names.get(category) if isinstance(category, int | str) else None
    if not isinstance(name, str) or name not in classes:
        collector.reject(Reason.UNKNOWN_CLASS, place, f"category {category} ({name}) is not in the card")
        return
    try:
        left, top, width, height = (float(value) for value in item["bbox"])
    except (KeyError, TypeError, ValueError, OverflowError):
        collector.reject(Reason.BAD_NUMBER, place, f"bbox {item.get('bbox')} is not four numbers")
        return
    collector.add((left, top, left + width, top + height), classes[name], bool(item.get("iscrowd", 0)), place)


def _listed(item: dict[str, Any], collectors: Mapping[Any, BoxCollector], place: str) -> ListedImage:
    key = _get(item, "id", place)
    boxes, rejected = collectors[key].finish() if key in collectors else (Boxes(), ())
    width, height = item.get("width"), item.get("height")
    size = (width, height) if isinstance(width, int) and isinstance(height, int) and width > 0 < height else None
    return ListedImage(str(key), str(_get(item, "file_name", place)), size, boxes, rejected)


@annotation_format("coco_json")
def read(root: UPath, source: SplitSource, card: Card) -> Iterator[AnnotatedImage]:
    """The images that the file lists; image ids are COCO's own, as its result files need them.

    Raises:
        DataError: the image folder or the file is missing.
        AnnotationError: the file cannot be read.
    """
    text = read_text(root, source.annotations)
    present = set(files_below(root, source.images))
    for image in parse(text, card.class_numbers(), str(root / source.annotations)):
        place = f"{source.images}/{image.file_name or f'image {image.image_id}'}"
        if image.file_name in present:
            path = root / source.images / image.file_name
            yield AnnotatedImage(image.image_id, path, place, image.boxes, image.rejected, size=image.size)
        else:
            problem = Rejection(Reason.IMAGE_MISSING, place)
            yield AnnotatedImage(image.image_id, None, place, Boxes(), problem=problem)
