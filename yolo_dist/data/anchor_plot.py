"""A picture of anchors: the boxes by width and height, each in the colour of the anchor that fits it best."""

import cv2
import numpy as np
from numpy.typing import NDArray

from yolo_dist.data.anchors import Anchors
from yolo_dist.data.drawing import class_colour
from yolo_dist.data.image import Pixels

SIDE = 880
"""Width and height of the picture in pixels."""

_MARGIN = 64
_INK, _GRID, _PAPER = (40, 40, 40), (225, 225, 225), 255
_FONT = cv2.FONT_HERSHEY_SIMPLEX
_TICKS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000)
_MOST_POINTS = 20_000
_OPACITY = 0.35


def plot_anchors(sizes: NDArray[np.float32], anchors: Anchors, title: str) -> Pixels:
    """Boxes as points and anchors as rings, on logarithmic axes in pixels of the network's input.

    Args:
        sizes: (width, height) of the boxes in input pixels, float32 [n, 2], n ≥ 1; of very many, a part is drawn.
        anchors: what was found for them.
        title: ASCII text above the picture.

    Returns:
        uint8 RGB [SIDE, SIDE, 3].
    """
    shown = sizes[:: -(-len(sizes) // _MOST_POINTS)]
    axis = _Axis(np.concatenate([shown, anchors.sizes]))
    canvas = np.full((SIDE, SIDE, 3), _PAPER, np.uint8)
    _draw_axes(canvas, axis, title)
    points = canvas.copy()
    for place, number in zip(axis.places(shown), anchors.nearest(shown).tolist(), strict=True):
        cv2.circle(points, place, 2, class_colour(number), cv2.FILLED, cv2.LINE_AA)
    canvas = np.asarray(cv2.addWeighted(points, _OPACITY, canvas, 1 - _OPACITY, 0), np.uint8)
    for number, place in enumerate(axis.places(anchors.sizes)):
        _draw_anchor(canvas, place, class_colour(number), anchors.sizes[number])
    return canvas


class _Axis:
    """Positions in the picture, on the same logarithmic scale in both directions."""

    def __init__(self, sizes: NDArray[np.float32]) -> None:
        limits = np.maximum([sizes.min() / 1.1, sizes.max() * 1.1], 1.0)
        self.low, self.high = (float(limit) for limit in limits)
        self._unit = (SIDE - 2 * _MARGIN) / np.log(max(self.high / self.low, 1.1))

    def along(self, size: float) -> int:
        """Pixels from the margin."""
        return round(float(np.log(max(size, self.low) / self.low) * self._unit))

    def place(self, width: float, height: float) -> tuple[int, int]:
        """Column and row of a size."""
        return _MARGIN + self.along(width), SIDE - _MARGIN - self.along(height)

    def places(self, sizes: NDArray[np.float32]) -> list[tuple[int, int]]:
        """Column and row of each size."""
        return [self.place(width, height) for width, height in sizes.tolist()]


def _draw_axes(canvas: Pixels, axis: _Axis, title: str) -> None:
    for tick in (tick for tick in _TICKS if axis.low <= tick <= axis.high):
        column, row = axis.place(tick, tick)
        cv2.line(canvas, (column, _MARGIN), (column, SIDE - _MARGIN), _GRID, 1)
        cv2.line(canvas, (_MARGIN, row), (SIDE - _MARGIN, row), _GRID, 1)
        _write(canvas, str(tick), (column - 8, SIDE - _MARGIN + 20))
        _write(canvas, str(tick), (_MARGIN - 40, row + 5))
    _write(canvas, title, (_MARGIN, _MARGIN - 30), 0.55)
    _write(canvas, "width in pixels", (SIDE // 2 - 50, SIDE - 16))
    _write(canvas, "height", (8, _MARGIN - 10))


def _draw_anchor(
    canvas: Pixels, place: tuple[int, int], colour: tuple[int, int, int], size: NDArray[np.float32]
) -> None:
    cv2.circle(canvas, place, 8, (255, 255, 255), cv2.FILLED, cv2.LINE_AA)
    cv2.circle(canvas, place, 7, colour, cv2.FILLED, cv2.LINE_AA)
    cv2.circle(canvas, place, 8, _INK, 1, cv2.LINE_AA)
    text = f"{size[0]:.0f},{size[1]:.0f}"
    start = (place[0] + 12, place[1] + 5)
    cv2.putText(canvas, text, start, _FONT, 0.45, (255, 255, 255), 4, cv2.LINE_AA)
    _write(canvas, text, start)


def _write(canvas: Pixels, text: str, start: tuple[int, int], scale: float = 0.45) -> None:
    cv2.putText(canvas, text, start, _FONT, scale, _INK, 1, cv2.LINE_AA)
