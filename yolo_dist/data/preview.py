"""A contact sheet of a converted split: whether boxes sit on objects is best seen."""

import cv2
import numpy as np

from yolo_dist.data.drawing import draw_boxes
from yolo_dist.data.image import Pixels, decode_image, letterbox
from yolo_dist.data.shards import Sample, ShardSet
from yolo_dist.errors import DataError

_GAP = 4
_PAPER = 255


def contact_sheet(shards: ShardSet, count: int = 16, columns: int = 4, tile: tuple[int, int] = (320, 320)) -> Pixels:
    """Images spread evenly over a split, with their boxes; ignored boxes are captioned "ignore".

    Args:
        shards: the split.
        count: how many images, at most.
        columns: side by side.
        tile: (width, height) of each in pixels.

    Returns:
        uint8 RGB [rows × (tile height + gap), columns × (tile width + gap), 3].

    Raises:
        DataError: the split is empty.
    """
    if not len(shards):
        raise DataError(f"{shards.folder}: holds no image to show")
    numbers = np.linspace(0, len(shards) - 1, min(count, len(shards))).round().astype(int)
    columns = min(columns, len(numbers))
    rows = -(-len(numbers) // columns)
    height, width = tile[1] + _GAP, tile[0] + _GAP
    sheet = np.full((rows * height, columns * width, 3), _PAPER, np.uint8)
    for place, number in enumerate(numbers):
        top, left = place // columns * height, place % columns * width
        sheet[top : top + tile[1], left : left + tile[0]] = _tile(shards[int(number)], shards.classes, tile)
    return sheet


def _tile(sample: Sample, classes: tuple[str, ...], size: tuple[int, int]) -> Pixels:
    image, box = letterbox(decode_image(sample.image, source=sample.image_id, trusted=True), size)
    labels = np.where(sample.boxes.ignore, len(classes), sample.boxes.labels)
    return draw_boxes(image, box.forward(sample.boxes.xyxy), labels, (*classes, "ignore"))


def encode_png(image: Pixels) -> bytes:
    """An RGB image as a PNG file."""
    _, encoded = cv2.imencode(".png", image[:, :, ::-1])
    return encoded.tobytes()
