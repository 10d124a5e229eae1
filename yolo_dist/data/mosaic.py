"""Four images as one (Bochkovskiy et al. 2020, "YOLOv4"); all randomness comes from the generator passed in."""

from collections.abc import Iterable, Sequence

import numpy as np

from yolo_dist.data.annotations import Boxes
from yolo_dist.data.augment import cut
from yolo_dist.data.image import PADDING, Pixels, plan_letterbox, resize_into


def mosaic_into(tiles: Iterable[tuple[Pixels, Boxes]], canvas: Pixels, generator: np.random.Generator) -> Boxes:
    """Four images around a random point.

    Each is scaled as a letterbox would scale it and laid with one corner on the point; what hangs over is cut off.

    Args:
        tiles: four images, uint8 RGB of any size, with boxes in their own pixels; in reading order. They are taken one
            after another, so that they need not all be decoded at once.
        canvas: uint8 [height, width, 3], all of which is overwritten.
        generator: of the first tile's sample.

    Returns:
        The boxes still visible.
    """
    size = canvas.shape[1], canvas.shape[0]
    canvas[:] = PADDING
    x, y = (int(side * share) for side, share in zip(size, generator.uniform(0.25, 0.75, 2), strict=True))
    placed = []
    for number, (image, boxes) in enumerate(tiles):
        height, width = image.shape[:2]
        scale = plan_letterbox(width, height, size).scale
        left = float(x if number % 2 else x - width * scale)
        top = float(y if number // 2 else y - height * scale)
        if not _lay(image, canvas, scale, left, top):
            placed.append(Boxes())
            continue
        shift = np.array([left, top, left, top], np.float32)
        moved = Boxes(boxes.xyxy * np.float32(scale) + shift, boxes.labels, boxes.ignore)
        placed.append(cut(moved, *size))
    return join(placed)


def _lay(image: Pixels, canvas: Pixels, scale: float, left: float, top: float) -> bool:
    """Scale the part of an image that lies on the canvas, and write it there; False if no pixel of it is left."""
    origin = np.array([left, top, left, top])
    sides = np.array(image.shape[1::-1])
    corners = origin + scale * np.array([0, 0, *sides])
    window = np.clip(corners.round(), 0, np.tile(canvas.shape[1::-1], 2)).astype(int)
    if (window[2:] <= window[:2]).any():  # a very thin image
        return False
    source = ((window - origin) / scale).round().astype(int)
    start = np.clip(source[:2], 0, sides - 1)
    end = np.clip(source[2:], start + 1, sides)
    part = image[start[1] : end[1], start[0] : end[0]]
    resize_into(part, canvas[window[1] : window[3], window[0] : window[2]])
    return True


def join(parts: Sequence[Boxes]) -> Boxes:
    """The boxes of several images as one set."""
    return Boxes(
        np.concatenate([part.xyxy for part in parts]),
        np.concatenate([part.labels for part in parts]),
        np.concatenate([part.ignore for part in parts]),
    )
