"""BDD100K annotations in their editions, and Scalabel's (Yu et al. 2020, "BDD100K: A Diverse Driving Dataset").

- 2018: one array of frames a split; newer (det_20): the same with newer class names.
- One file a frame: the frame's name, and `frames` with one list of `objects`.
- Scalabel: an array of frames, or an object with `frames`; frames of a video have its name too.

A frame may have no labels. A label is a box (`box2d`, corners in pixels) or another shape, which is not read.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from upath import UPath

from yolo_dist.data.annotations import BoxCollector, Boxes, Reason, Rejection
from yolo_dist.data.card import Card, SplitSource
from yolo_dist.data.formats.file_content import text_chunks
from yolo_dist.data.formats.folders import (
    IMAGE_SUFFIXES,
    annotation_files,
    image_files,
    image_place,
    missing_image,
    noted_size,
    unreadable_annotation,
)
from yolo_dist.data.formats.json_text import array_elements, first_character, load_json
from yolo_dist.data.formats.registry import AnnotatedImage, annotation_format
from yolo_dist.errors import AnnotationError, DataError

OTHER_SHAPES = ("poly2d", "box3d", "rle", "graph")
LOOK_ALIKES = {"other person": "pedestrian", "other vehicle": "car", "trailer": "truck"}
"""Kinds of objects that are in none of the classes; boxes to ignore in the class they may be taken for."""

_SIDES = ("x1", "y1", "x2", "y2")


@dataclass(frozen=True)
class Frame:
    """One image of a file.

    Attributes:
        names: what its file may be called below the image folder, without the suffix.
        boxes: its objects.
        rejected: boxes that cannot be used.
        size: (width, height) in pixels, where given.
    """

    names: tuple[str, ...]
    boxes: Boxes
    rejected: tuple[Rejection, ...]
    size: tuple[int, int] | None


def parse(chunks: Iterable[str], classes: Mapping[str, int], place: str = "labels") -> Iterator[Frame]:
    """Frames of a file of any edition, in its order; crowds come back with ignore set.

    An array is read frame by frame: training labels of 2018 take over a gigabyte, most of it for shapes not read here.

    Args:
        chunks: the file's text in pieces of any size.
        classes: class numbers by name.
        place: the file's name, for messages.

    Raises:
        AnnotationError: not JSON (names line and byte), or not frames (names the frame).
    """
    for number, frame in enumerate(_frames(chunks, place)):
        yield _parse_frame(frame, classes, f"{place}: frames[{number}]")


def _frames(chunks: Iterable[str], place: str) -> Iterator[Any]:
    first, whole = first_character(chunks)
    if first == "[":
        yield from array_elements(whole, place)
        return
    content = load_json("".join(whole), place)
    frames = content.get("frames", [content]) if isinstance(content, dict) else None
    if not isinstance(frames, list):
        raise AnnotationError(f"{place}: must be a list of frames, or an object with frames")
    named = {"name": content["name"]} if "name" in content else {}
    yield from (named | frame if isinstance(frame, dict) else frame for frame in frames)


def _parse_frame(frame: Any, classes: Mapping[str, int], place: str) -> Frame:
    name = frame.get("name") if isinstance(frame, dict) else None
    if not isinstance(name, str) or not name:
        raise AnnotationError(f"{place}: name must be the name of an image; is this a BDD100K or Scalabel file?")
    labels = frame.get("labels") or frame.get("objects") or []
    if not isinstance(labels, list) or not all(isinstance(label, dict) for label in labels):
        raise AnnotationError(f"{place}: labels of {name} must be a list of objects")
    collector = BoxCollector()
    for number, label in enumerate(labels):
        _add_label(label, classes, f"{place}: labels[{number}]", collector)
    boxes, rejected = collector.finish()
    return Frame(_image_names(name, frame.get("videoName")), boxes, rejected, _size_of(frame))


def _add_label(label: dict[str, Any], classes: Mapping[str, int], place: str, collector: BoxCollector) -> None:
    box: Any = label.get("box2d")
    name = label.get("category")
    if box is None and any(label.get(shape) for shape in OTHER_SHAPES):
        return
    attributes = label.get("attributes") or {}
    ignore = isinstance(attributes, dict) and bool(attributes.get("crowd") or attributes.get("ignored"))
    if name in LOOK_ALIKES and name not in classes:
        name, ignore = LOOK_ALIKES[name], True
    if not isinstance(name, str) or name not in classes:
        collector.reject(Reason.UNKNOWN_CLASS, place, f"category {label.get('category')!r} is not in the card")
        return
    try:
        left, top, right, bottom = (float(box[side]) for side in _SIDES)
    except (KeyError, TypeError, ValueError, OverflowError):
        collector.reject(Reason.BAD_NUMBER, place, f"box2d {box} has not four numbers {', '.join(_SIDES)}")
        return
    collector.add((left, top, right, bottom), classes[name], ignore, place)


def _image_names(name: str, video: Any) -> tuple[str, ...]:
    stem, dot, suffix = name.rpartition(".")
    stem = stem if dot and f".{suffix.lower()}" in IMAGE_SUFFIXES else name
    return (f"{video}/{stem}", stem) if isinstance(video, str) and video else (stem,)


def _size_of(frame: Mapping[str, Any]) -> tuple[int, int] | None:
    size = frame.get("size")
    return noted_size(size) if isinstance(size, dict) else None


@annotation_format("bdd_json")
def read(root: UPath, source: SplitSource, card: Card) -> Iterator[AnnotatedImage]:
    """The images of a split: those its file lists, or those of a folder with one file a frame.

    Raises:
        DataError: the image folder, or the file or folder of annotations, is missing.
        AnnotationError: the split's file cannot be read; in a folder, a file costs its image.
    """
    files = image_files(root, source)
    classes = card.class_numbers()
    if (root / source.annotations).is_dir():
        yield from _read_folder(root, source, files, classes)
        return
    for frame in parse(text_chunks(root, source.annotations), classes, source.annotations):
        yield _annotated(frame, source, files)


def _read_folder(
    root: UPath, source: SplitSource, files: dict[str, UPath], classes: Mapping[str, int]
) -> Iterator[AnnotatedImage]:
    for name, place in annotation_files(root, source, ".json").items():
        try:
            frames = list(parse(text_chunks(root, place), classes, place))
        except DataError as error:
            yield unreadable_annotation(name, place, error)
            continue
        yield from (_annotated(frame, source, files) for frame in frames)


def _annotated(frame: Frame, source: SplitSource, files: Mapping[str, UPath]) -> AnnotatedImage:
    name = next((name for name in frame.names if name in files), None)
    if name is None:
        return missing_image(frame.names[0], source)
    place = image_place(source, name, files[name])
    return AnnotatedImage(name, files[name], place, frame.boxes, frame.rejected, size=frame.size)
