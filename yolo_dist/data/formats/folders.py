"""Folders of images and lists of their names, as all formats with one file an image have them."""

from upath import UPath

from yolo_dist.data.annotations import Boxes, Reason, Rejection
from yolo_dist.data.card import SplitSource
from yolo_dist.data.formats.registry import AnnotatedImage
from yolo_dist.errors import AnnotationError, DataError

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
    """Paths of the files anywhere in a folder of the dataset, relative to the folder, sorted.

    Raises:
        DataError: there is no such folder.
    """
    top = root / folder
    if not top.is_dir():
        raise DataError(f"{top}: no such folder; the source must be the root of the dataset as downloaded")
    base = top.path.rstrip("/")
    return sorted(name.removeprefix(base).lstrip("/") for name in top.fs.find(base))


def listed_images(root: UPath, source: SplitSource, files: dict[str, UPath]) -> list[str]:
    """Names of a split's images in the order of its list file; without one, all of `files`.

    An entry may be a bare name, a path below the image folder or below the root, or the absolute path a Darknet list
    holds; suffixes do not matter.

    Raises:
        DataError: there is no such list.
    """
    if source.list is None:
        return list(files)
    lines = (line.strip() for line in read_text(root, source.list).splitlines())
    return [_image_name(line, source.images, files) for line in lines if line]


def _image_name(entry: str, folder: str, files: dict[str, UPath]) -> str:
    tail = entry.rpartition(f"{folder.strip('./')}/")[2] if folder.strip("./") else entry.removeprefix("./")
    stem, dot, suffix = tail.rpartition(".")
    return stem if dot and tail not in files and f".{suffix.lower()}" in IMAGE_SUFFIXES else tail


def read_text(root: UPath, name: str) -> str:
    """A text file of the dataset, UTF-8 with or without a byte-order mark.

    Raises:
        DataError: there is no such file.
        AnnotationError: it is not UTF-8; names the byte.
    """
    path = root / name
    try:
        return path.read_bytes().decode("utf-8-sig")
    except FileNotFoundError:
        raise DataError(f"{path}: no such file; the source must be the root of the dataset as downloaded") from None
    except UnicodeDecodeError as error:
        raise AnnotationError(f"{path}: byte {error.start} is not UTF-8 text; save the file as UTF-8") from None


def missing_image(name: str, source: SplitSource) -> AnnotatedImage:
    """An image that is listed but not there."""
    place = f"{source.images}/{name}"
    return AnnotatedImage(name, None, place, Boxes(), problem=Rejection(Reason.IMAGE_MISSING, place))
