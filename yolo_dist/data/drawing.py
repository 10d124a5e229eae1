"""Boxes drawn on images, for previews, detections and reports."""

import colorsys
from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from yolo_dist.data.image import Pixels

_GOLDEN_RATIO = 0.618033988749895
_FONT = cv2.FONT_HERSHEY_SIMPLEX


def class_colour(label: int) -> tuple[int, int, int]:
    """RGB of a class; neighbouring numbers are far apart in hue."""
    red, green, blue = colorsys.hsv_to_rgb(label * _GOLDEN_RATIO % 1, 0.85, (1.0, 0.8)[label % 2])
    return round(red * 255), round(green * 255), round(blue * 255)


def draw_boxes(
    image: Pixels,
    xyxy: NDArray[np.float32],
    labels: NDArray[np.integer],
    names: Sequence[str],
    scores: NDArray[np.float32] | None = None,
) -> Pixels:
    """A copy of an image with boxes, class names and scores on it.

    Args:
        image: uint8 RGB [h, w, 3].
        xyxy: in its pixels, float32 [n, 4].
        labels: class numbers, integers [n].
        names: of the classes.
        scores: 0 to 1, float32 [n].
    """
    canvas = np.ascontiguousarray(image).copy()
    thickness = _thickness(canvas)
    order = range(len(labels)) if scores is None else np.argsort(scores, kind="stable").tolist()
    for number in order:
        text = names[int(labels[number])]
        caption = text if scores is None else f"{text} {scores[number]:.2f}"
        _draw_one(canvas, xyxy[number], class_colour(int(labels[number])), caption, thickness)
    return canvas


def outline(image: Pixels, xyxy: NDArray[np.float32]) -> Pixels:
    """A copy of an image with plain boxes on it, white with a black rim: they are seen on any ground, and around a
    box of `draw_boxes` in the same place."""
    canvas = np.ascontiguousarray(image).copy()
    thickness = _thickness(canvas)
    for width, colour in ((thickness + 4, (0, 0, 0)), (thickness + 2, (255, 255, 255))):
        for left, top, right, bottom in xyxy.round().astype(int).tolist():
            cv2.rectangle(canvas, (left, top), (right - 1, bottom - 1), colour, width)
    return canvas


def _thickness(image: Pixels) -> int:
    longer: int = max(image.shape[:2])
    return max(1, round(longer / 400))


def _draw_one(
    canvas: Pixels, xyxy: NDArray[np.float32], colour: tuple[int, int, int], caption: str, thickness: int
) -> None:
    left, top, right, bottom = (round(float(value)) for value in xyxy)
    cv2.rectangle(canvas, (left, top), (right - 1, bottom - 1), colour, thickness)
    scale = 0.3 + 0.1 * thickness
    (width, height), baseline = cv2.getTextSize(caption, _FONT, scale, 1)
    base = max(top, height + baseline)  # a caption that would leave the image moves into the box
    start = max(0, min(left, canvas.shape[1] - width))
    cv2.rectangle(canvas, (start, base - height - baseline), (start + width, base), colour, cv2.FILLED)
    dark = np.dot(colour, (0.299, 0.587, 0.114)) < 140
    ink = (255, 255, 255) if dark else (0, 0, 0)
    cv2.putText(canvas, caption, (start, base - baseline // 2 - 1), _FONT, scale, ink, 1, cv2.LINE_AA)
