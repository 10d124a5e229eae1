"""Oxford Hand annotations: one MATLAB file an image (Mittal et al. 2011, "Hand detection using multiple proposals").

`boxes` is a 1×N cell of 1×1 structs. Their fields a, b, c, d are the corners of a rotated quadrilateral as [y, x],
1×2 doubles; another field, which may be missing or empty, tells left from right hands and is not read. The box is the
upright rectangle around the corners. MATLAB gives the centre of the first pixel the position 1, where boxes here begin
at its edge with 0: half a pixel is taken off.
"""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from upath import UPath

from yolo_dist.data.annotations import BoxCollector, Boxes, Reason, Rejection
from yolo_dist.data.card import Card, SplitSource
from yolo_dist.data.formats.folders import annotated_images
from yolo_dist.data.formats.mat_file import Cells, Structs, Value, read_variables
from yolo_dist.data.formats.registry import AnnotatedImage, annotation_format
from yolo_dist.errors import AnnotationError

CORNERS = ("a", "b", "c", "d")
HALF_PIXEL = 0.5
HAND = 0


def parse(content: bytes, place: str = "annotation") -> tuple[Boxes, tuple[Rejection, ...]]:
    """Boxes of one image, all of class 0, and what was rejected, by number of the box from 1.

    Args:
        content: the file.
        place: its name, for messages.

    Raises:
        AnnotationError: it is no MATLAB file of version 5 to 7, it is damaged, or it has no cell array `boxes`.
    """
    collector = BoxCollector()
    for number, cell in enumerate(_cells(content, place), start=1):
        _add_cell(cell, f"{place}: box {number}", collector)
    return collector.finish()


def _cells(content: bytes, place: str) -> tuple[Value, ...]:
    boxes = read_variables(content, place).get("boxes")
    if isinstance(boxes, np.ndarray) and not boxes.size:
        return ()  # how MATLAB writes a cell array that was never filled
    if not isinstance(boxes, Cells):
        raise AnnotationError(f"{place}: holds no cell array named boxes; is this an Oxford Hand annotation?")
    return boxes.items


def _add_cell(cell: Value, place: str, collector: BoxCollector) -> None:
    corners = _corners(cell)
    if corners is None:
        collector.reject(Reason.BAD_NUMBER, place, f"has not the corners {', '.join(CORNERS)} as [y, x]")
        return
    top, left = corners.min(axis=0) - HALF_PIXEL
    bottom, right = corners.max(axis=0) - HALF_PIXEL
    collector.add((float(left), float(top), float(right), float(bottom)), HAND, False, place)


def _corners(cell: Value) -> NDArray[np.float64] | None:
    """(y, x) of the four corners, float64 [4, 2]."""
    if not isinstance(cell, Structs) or len(cell.items) != 1:
        return None
    points = [cell.items[0].get(corner) for corner in CORNERS]
    found = [point.ravel() for point in points if isinstance(point, np.ndarray) and point.size == 2]
    return np.array(found) if len(found) == len(CORNERS) else None


@annotation_format("hand_mat")
def read(root: UPath, source: SplitSource, card: Card) -> Iterator[AnnotatedImage]:
    """The images of a split; names repeat between its training and its test images, so ids begin with the split.

    Raises:
        DataError: a folder or the list is missing.
    """
    split = next(
        name for name, other in card.splits.items() if (other.images, other.list) == (source.images, source.list)
    )
    for image in annotated_images(root, source, ".mat", parse):
        yield replace(image, image_id=f"{split}/{image.image_id}")
