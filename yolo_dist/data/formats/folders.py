"""Folders of images and lists of their names, as all formats with one file an image have them."""

import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from upath import UPath

from yolo_dist.data.annotations import Boxes, Reason, Rejection
from yolo_dist.data.card import SplitSource
from yolo_dist.data.formats.file_content import read_file, read_text
from yolo_dist.data.formats.registry import AnnotatedImage
from yolo_dist.errors import DataError
from yolo_dist.object_store import is_remote

IMAGE_SUFFIXES = (".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")


def image_files(root: UPath, source: SplitSource) -> dict[str, UPath]:
    """A split's image folder: file by its path below the folder without the suffix, sorted.

    Raises:
        DataError: there is no such folder, or two files differ only in their suffix.
    """
    files: dict[str, UPath] = {}
    for name in files_below(root, source.images):
        stem, _, suffix = name.rpartition(".")
        if f".{suffix.lower()}" not in IMAGE_SUFFIXES:
            continue
        path = root / source.images / name
        if stem in files:
            raise DataError(f"{path}: {files[stem].name} has the same name; image ids must be unique, rename one")
        files[stem] = path
    return files


def files_below(root: UPath, folder: str) -> list[str]:
    """Paths of the files anywhere in a folder of the dataset, relative to the folder, sorted; links are followed.

    Raises:
        DataError: there is no such folder, or a file's name is not UTF-8.
    """
    top = root / folder
    if not top.is_dir():
        raise DataError(f"{top}: no such folder; the source must be the root of the dataset as downloaded")
    base = top.path.rstrip("/")
    paths = top.fs.find(base) if is_remote(top) else _local_files(base)
    names = sorted(path.removeprefix(base).lstrip("/") for path in paths)
    for name in names:
        if not name.isascii() and any(0xD800 <= ord(letter) < 0xE000 for letter in name):
            raise DataError(f"{top}: the name of {name!a} is not UTF-8; rename the file")
    return names


def _local_files(folder: str, above: tuple[tuple[int, int], ...] = ()) -> Iterator[str]:
    """All below a folder, but not again what a link to one of the folders `above` leads to."""
    status = Path(folder).stat()
    here = (status.st_dev, status.st_ino)
    if here in above:
        return
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir():
                yield from _local_files(entry.path, (*above, here))
            else:
                yield entry.path


def annotation_files(root: UPath, source: SplitSource, suffix: str) -> dict[str, str]:
    """A split's annotation files: path below the root by path below their folder without the suffix, in any case.

    Raises:
        DataError: there is no such folder.
    """
    return {
        name[: -len(suffix)]: f"{source.annotations}/{name}"
        for name in files_below(root, source.annotations)
        if name.lower().endswith(suffix)
    }


def image_place(source: SplitSource, name: str, file: UPath) -> str:
    """Where an image lies below the root, for messages."""
    return f"{source.images}/{name}{file.suffix}"


def listed_images(root: UPath, source: SplitSource, files: dict[str, UPath]) -> list[str]:
    """Names of a split's images in the order of its list file; without one, all of `files`.

    An entry may be a bare name, a path below the image folder or below the root, or the absolute path a Darknet list
    holds; suffixes do not matter. Pascal VOC's lists of a class say behind a name whether it is there (1, 0 or -1): all
    of them are images of the split.

    Raises:
        DataError: there is no such list.
    """
    if source.list is None:
        return list(files)
    lines = (line.strip() for line in read_text(root, source.list).splitlines())
    top = (root / source.images).path.rstrip("/")
    return [_image_name(line, top, source.images.strip("./"), files) for line in lines if line]


def _image_name(entry: str, top: str, folder: str, files: dict[str, UPath]) -> str:
    """The first way to read an entry that names an image: as it stands, below `top`, below a folder called `folder`."""
    entry = entry.removeprefix("./")
    tails = [entry, entry.removeprefix(f"{top}/")]
    if folder:
        tails.append(f"/{entry}".rpartition(f"/{folder}/")[2].removeprefix("/"))
    names = [_without_suffix(tail, files) for tail in tails]
    return next((name for name in names if name in files), names[-1])


def _without_suffix(tail: str, files: dict[str, UPath]) -> str:
    name, _, presence = tail.rpartition(" ")
    if presence in ("1", "0", "-1") and tail not in files and name.strip() in files:
        return name.strip()
    stem, dot, suffix = tail.rpartition(".")
    return stem if dot and tail not in files and f".{suffix.lower()}" in IMAGE_SUFFIXES else tail


Parse = Callable[[bytes, str], tuple[Boxes, tuple[Rejection, ...]]]
"""Reads the content of one annotation file, whose name comes second, into boxes and what was rejected."""


def annotated_images(root: UPath, source: SplitSource, suffix: str, parse: Parse) -> Iterator[AnnotatedImage]:
    """A split's images, with one annotation file each: those of its list, or all that have an image or an annotation.

    Args:
        root: of the dataset.
        source: where the split lies.
        suffix: of the annotation files, with its dot.
        parse: reads one of them; an error costs the image.

    Raises:
        DataError: a folder or the list is missing.
    """
    files = image_files(root, source)
    annotations = annotation_files(root, source, suffix)
    everything = sorted({*files, *annotations})
    for name in listed_images(root, source, files) if source.list else everything:
        if name not in files:
            yield missing_image(name, source)
            continue
        place = image_place(source, name, files[name])
        annotation = annotations.get(name, f"{source.annotations}/{name}{suffix}")
        try:
            boxes, rejected = parse(read_file(root, annotation), annotation)
        except DataError as error:
            yield unreadable_annotation(name, place, error)
        else:
            yield AnnotatedImage(name, files[name], place, boxes, rejected)


def unreadable_annotation(name: str, place: str, error: DataError) -> AnnotatedImage:
    """An image whose annotation file is missing or damaged."""
    return AnnotatedImage(
        name, None, place, Boxes(), problem=Rejection(Reason.ANNOTATION_UNREADABLE, place, str(error))
    )


def noted_size(facts: Mapping[str, Any]) -> tuple[int, int] | None:
    """The size of an image that annotations note under `width` and `height`; None where they do not, or wrongly."""
    width, height = facts.get("width"), facts.get("height")
    return (width, height) if isinstance(width, int) and isinstance(height, int) and width > 0 < height else None


def missing_image(name: str, source: SplitSource) -> AnnotatedImage:
    """An image that is listed but not there."""
    place = f"{source.images}/{name}"
    return AnnotatedImage(name, None, place, Boxes(), problem=Rejection(Reason.IMAGE_MISSING, place))
