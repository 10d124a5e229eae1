"""Augmentation on uint8 images and their boxes; all randomness comes from the generator passed in.

Defaults are the original's: mosaic always, colour and flip on, affine off.
"""

import cv2
import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from yolo_dist.config import Config
from yolo_dist.data.annotations import Boxes
from yolo_dist.data.image import PADDING, Pixels

MIN_VISIBLE = 0.2
"""A box cut to less than this share of its area is dropped: what remains can hardly be recognised."""
STRIP = 1 << 16
"""Pixels whose colours are changed at a time: all their intermediate results stay in the processor's cache."""


class AugmentConfig(Config):
    """What happens to training images."""

    mosaic: float = Field(default=1.0, ge=0, le=1)
    """Probability of joining an image with three others around a random point."""
    hue: float = Field(default=0.0138, ge=0, le=1)
    """Largest relative change of hue."""
    saturation: float = Field(default=0.678, ge=0, le=1)
    """Largest relative change of saturation."""
    value: float = Field(default=0.36, ge=0, le=1)
    """Largest relative change of brightness."""
    flip: float = Field(default=0.5, ge=0, le=1)
    """Probability of a left-right flip."""
    degrees: float = Field(default=0.0, ge=0, le=180)
    """Largest rotation either way."""
    translate: float = Field(default=0.0, ge=0, le=1)
    """Largest shift either way, as a fraction of the side."""
    scale: float = Field(default=0.0, ge=0, lt=1)
    """Largest relative change of size: 0.2 means 0.8 to 1.2 times."""
    shear: float = Field(default=0.0, ge=0, lt=90)
    """Largest shear along each axis, in degrees."""

    @property
    def has_affine(self) -> bool:
        """Whether any geometric change but the flip is on."""
        return any((self.degrees, self.translate, self.scale, self.shear))

    @property
    def has_colour(self) -> bool:
        """Whether colours change."""
        return any((self.hue, self.saturation, self.value))


def augment(image: Pixels, boxes: Boxes, config: AugmentConfig, generator: np.random.Generator) -> Boxes:
    """Affine, colour and flip, in place, for an image in the network's input size (mosaic comes before).

    Args:
        image: uint8 RGB [h, w, 3]; changed.
        boxes: in its pixels.
        config: how much.
        generator: of this sample.

    Returns:
        The boxes still visible.
    """
    if config.has_affine:
        matrix = random_affine(image.shape[1], image.shape[0], config, generator)
        _, boxes = affine(image.copy(), boxes, matrix, image)
    if config.has_colour:
        jitter_colour(image, config, generator, image)
    if generator.random() < config.flip:
        _, boxes = flip(image, boxes, image)
    return boxes


def flip(image: Pixels, boxes: Boxes, canvas: Pixels | None = None) -> tuple[Pixels, Boxes]:
    """Image and boxes mirrored left to right; into a canvas of its size if there is one, which may be the image."""
    width = np.float32(image.shape[1])
    left, top, right, bottom = boxes.xyxy.T
    mirrored = np.stack([width - right, top, width - left, bottom], axis=1)
    flipped = cv2.flip(image, 1, dst=canvas)
    return flipped.astype(np.uint8, copy=False), Boxes(mirrored, boxes.labels, boxes.ignore)


def jitter_colour(
    image: Pixels, config: AugmentConfig, generator: np.random.Generator, canvas: Pixels | None = None
) -> Pixels:
    """Hue, saturation and value each multiplied by a random factor.

    Into a canvas of the image's size if there is one, which may be the image.
    """
    canvas = np.empty_like(image) if canvas is None else canvas
    factors = 1 + generator.uniform(-1, 1, 3) * (config.hue, config.saturation, config.value)
    fits = factors[0] * 179 <= 255  # a hue of more than a full turn is fine on the way back to RGB
    products = np.diag(factors if fits else [1, *factors[1:]]).astype(np.float32)
    hues = (np.arange(256) * factors[0] % 180).astype(np.uint8)
    rows = max(1, STRIP // image.shape[1])
    for top in range(0, len(image), rows):
        hsv = cv2.cvtColor(image[top : top + rows], cv2.COLOR_RGB2HSV)
        if not fits:
            cv2.insertChannel(cv2.LUT(cv2.extractChannel(hsv, 0), hues), hsv, 0)
        cv2.cvtColor(cv2.transform(hsv, products), cv2.COLOR_HSV2RGB, dst=canvas[top : top + rows])
    return canvas


def random_affine(
    width: int, height: int, config: AugmentConfig, generator: np.random.Generator
) -> NDArray[np.float64]:
    """A random shear, rotation, scaling and shift about the centre of the image, float64 [2, 3]."""
    angle, shear_x, shear_y = np.deg2rad(generator.uniform(-1, 1, 3) * (config.degrees, config.shear, config.shear))
    scale = 1 + generator.uniform(-1, 1) * config.scale
    shift = generator.uniform(-1, 1, 2) * config.translate * (width, height)
    rotation = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    linear = rotation @ np.array([[1, np.tan(shear_x)], [np.tan(shear_y), 1]])
    centre = np.array([width, height]) / 2
    return np.concatenate([linear, (centre + shift - linear @ centre)[:, None]], axis=1)


def affine(
    image: Pixels, boxes: Boxes, matrix: NDArray[np.float64], canvas: Pixels | None = None
) -> tuple[Pixels, Boxes]:
    """Image and boxes under a matrix [2, 3] on pixel-corner coordinates; a box becomes the box around its corners.

    Into a canvas of the image's size if there is one, which must not be the image.
    """
    height, width = image.shape[:2]
    centres = matrix.copy()
    centres[:, 2] += matrix[:, :2].sum(axis=1) / 2 - 0.5  # OpenCV counts from pixel centres
    warped = cv2.warpAffine(image, centres, (width, height), dst=canvas, borderValue=(PADDING, PADDING, PADDING))
    corners = boxes.xyxy[:, [0, 1, 2, 1, 2, 3, 0, 3]].reshape(-1, 4, 2) @ matrix[:, :2].T + matrix[:, 2]
    xyxy = np.concatenate([corners.min(axis=1), corners.max(axis=1)], axis=1).astype(np.float32)
    return warped.astype(np.uint8, copy=False), cut(Boxes(xyxy, boxes.labels, boxes.ignore), width, height)


def cut(boxes: Boxes, width: int, height: int) -> Boxes:
    """Boxes cut at the border of the image; those that lose nearly all of their area are dropped."""
    limits = np.array([width, height, width, height], np.float32)
    inside = np.clip(boxes.xyxy, 0, limits)
    visible = _areas(inside) >= MIN_VISIBLE * _areas(boxes.xyxy)
    return Boxes(inside, boxes.labels, boxes.ignore).select(visible)


def _areas(xyxy: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.asarray((xyxy[:, 2] - xyxy[:, 0]) * (xyxy[:, 3] - xyxy[:, 1]), np.float32)
