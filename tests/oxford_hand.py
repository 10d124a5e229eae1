"""Oxford Hand's layout on disk; the real images may not be passed on."""

from pathlib import Path

import cv2
import numpy as np

from yolo_dist.data.card import find_card


def write_hands(root: Path, annotation: bytes) -> Path:
    """One grey image of 640×500 px in every split, of the same name, as hundreds of the real ones are."""
    for split in find_card("hand").splits.values():
        for folder, name, content in (
            (split.images, "Buffy_1.jpg", cv2.imencode(".jpg", np.full((500, 640, 3), 99, np.uint8))[1].tobytes()),
            (split.annotations, "Buffy_1.mat", annotation),
        ):
            (root / folder).mkdir(parents=True)
            (root / folder / name).write_bytes(content)
    return root
