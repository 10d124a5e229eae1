"""What is in a dataset's files: bytes, and text in UTF-8."""

import codecs
from collections.abc import Iterator

from upath import UPath

from yolo_dist.errors import AnnotationError, DataError
from yolo_dist.storage import CHUNK_BYTES


def read_text(root: UPath, name: str) -> str:
    """A text file of the dataset, UTF-8 with or without a byte-order mark.

    Raises:
        DataError: there is no such file.
        AnnotationError: it is not UTF-8; names the byte.
    """
    return decode_text(read_file(root, name), str(root / name))


def decode_text(content: bytes, place: str) -> str:
    """UTF-8 text with or without a byte-order mark.

    Raises:
        AnnotationError: it is not UTF-8; names the byte.
    """
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise _not_utf8(place, error.start) from None


def read_file(root: UPath, name: str) -> bytes:
    """A file of the dataset.

    Raises:
        DataError: there is no such file.
    """
    path = root / name
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise _no_such_file(path) from None


def text_chunks(root: UPath, name: str) -> Iterator[str]:
    """A text file of the dataset in pieces of about a mebibyte; see `read_text`."""
    path, done, waiting = root / name, 0, 0
    decoder = codecs.getincrementaldecoder("utf-8-sig")()
    try:
        with path.open("rb") as file:
            while chunk := file.read(CHUNK_BYTES):
                yield decoder.decode(chunk)
                done += len(chunk)
                waiting = len(decoder.getstate()[0])
            yield decoder.decode(b"", final=True)
    except FileNotFoundError:
        raise _no_such_file(path) from None
    except UnicodeDecodeError as error:
        raise _not_utf8(str(path), done - waiting + error.start) from None


def _no_such_file(path: UPath) -> DataError:
    return DataError(f"{path}: no such file; the source must be the root of the dataset as downloaded")


def _not_utf8(path: str, offset: int) -> AnnotationError:
    return AnnotationError(f"{path}: byte {offset} is not UTF-8 text; save the file as UTF-8")
