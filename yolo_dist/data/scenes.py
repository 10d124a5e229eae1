"""Scenes of drawn objects on textured backgrounds: data for the demo and the tests that needs no download.

A scene is a pure function of its settings and its number; where its objects lie is known without drawing it.
"""

from dataclasses import dataclass
from functools import cached_property

import cv2
import numpy as np
from numpy.typing import NDArray
from pydantic import Field, field_validator

from yolo_dist.config import Config
from yolo_dist.data.annotations import Boxes

CLASSES = ("circle", "square", "triangle")
_CORNERS = (48, 4, 3)
_UPRIGHT = (0.0, np.pi / 4, -np.pi / 2)  # direction of the first corner
_PLACEMENTS = 20
_SUBPIXEL_BITS = 8
_OVERSAMPLING = 4
_CONTRAST = 90  # distance of an object's colour from the background's, in RGB levels
_LAYOUT, _PIXELS = 0, 1


class SceneSettings(Config):
    """How the images of a split are made."""

    images: int = Field(default=1000, gt=0)
    """How many there are."""
    seed: int = Field(ge=0)
    """Of all randomness; each split has its own."""
    width: int = Field(default=160, ge=32, le=4096)
    """Image width in pixels."""
    height: int = Field(default=160, ge=32, le=4096)
    """Image height in pixels."""
    objects: tuple[int, int] = (2, 5)
    """Fewest and most objects in an image."""
    diameter: tuple[float, float] = (32.0, 72.0)
    """Smallest and largest circle around an object, in pixels."""
    rotation: float = Field(default=25.0, ge=0, le=180)
    """Largest turn either way from upright, in degrees."""
    overlap: float = Field(default=0.1, ge=0, le=1)
    """Largest IoU of two objects' boxes."""
    distractors: tuple[int, int] = (0, 3)
    """Fewest and most crosses and bars, which belong to no class."""
    noise: float = Field(default=6.0, ge=0)
    """Standard deviation of the pixel noise, in grey levels."""
    quality: int = Field(default=92, ge=1, le=100)
    """JPEG quality."""

    @field_validator("objects", "diameter", "distractors")
    @classmethod
    def _smallest_first(cls, bounds: tuple[float, float]) -> tuple[float, float]:
        if not 0 <= bounds[0] <= bounds[1]:
            raise ValueError(f"needs the smaller number first, and none below 0, not [{bounds[0]:g}, {bounds[1]:g}]")
        return bounds


@dataclass(frozen=True)
class Shape:
    """One drawn object: a regular polygon (a circle has many corners)."""

    label: int
    centre: tuple[float, float]
    radius: float
    angle: float

    @property
    def outline(self) -> NDArray[np.float64]:
        """Corners in pixels, float64 [corners, 2]."""
        angles = self.angle + np.linspace(0, 2 * np.pi, _CORNERS[self.label], endpoint=False)
        return np.array(self.centre) + self.radius * np.stack([np.cos(angles), np.sin(angles)], axis=1)

    @property
    def xyxy(self) -> NDArray[np.float32]:
        """The box around it in pixels, float32 [4]."""
        outline = self.outline
        return np.concatenate([outline.min(axis=0), outline.max(axis=0)]).astype(np.float32)


@dataclass(frozen=True)
class Scene:
    """Image number `index` of a generated split; stands where other formats have the path of a file."""

    index: int
    settings: SceneSettings

    def __str__(self) -> str:
        return f"scene {self.index}"

    @cached_property
    def shapes(self) -> list[Shape]:
        """The objects, back to front."""
        generator = self._generator(_LAYOUT)
        shapes: list[Shape] = []
        for _ in range(generator.integers(*self.settings.objects, endpoint=True)):
            candidates = (self._place(generator) for _ in range(_PLACEMENTS))
            shape = next((one for one in candidates if self._is_free(one, shapes)), None)
            if shape is not None:
                shapes.append(shape)
        return shapes

    @property
    def boxes(self) -> Boxes:
        """The objects' boxes, cut at the border of the image."""
        size = (self.settings.width, self.settings.height)
        xyxy = np.array([shape.xyxy for shape in self.shapes], np.float32).reshape(-1, 4)
        labels = np.array([shape.label for shape in self.shapes], np.int32)
        return Boxes(np.clip(xyxy, 0, (*size, *size)).astype(np.float32), labels, np.zeros(len(labels), np.bool_))

    def draw(self) -> NDArray[np.uint8]:
        """The picture, uint8 RGB [height, width, 3]."""
        generator = self._generator(_PIXELS)
        background = generator.uniform(60, 196, 3)
        image = _texture(self.settings, background, generator)
        for _ in range(generator.integers(*self.settings.distractors, endpoint=True)):
            _draw_distractor(image, _contrasting(background, generator), generator)
        for shape in self.shapes:
            _fill(image, shape.outline, _contrasting(background, generator))
        noisy = image + generator.standard_normal(image.shape, np.float32) * np.float32(self.settings.noise)
        return np.clip(noisy.round(), 0, 255).astype(np.uint8)

    def read_bytes(self) -> bytes:
        """The picture as a JPEG file."""
        _, encoded = cv2.imencode(".jpg", self.draw()[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, self.settings.quality])
        return encoded.tobytes()

    def _generator(self, stream: int) -> np.random.Generator:
        return np.random.default_rng((self.settings.seed, self.index, stream))

    def _place(self, generator: np.random.Generator) -> Shape:
        radius = float(generator.uniform(*self.settings.diameter)) / 2
        margin = radius * 0.7
        sides = (self.settings.width, self.settings.height)
        centre = [float(generator.uniform(min(margin, side / 2), max(side - margin, side / 2))) for side in sides]
        label = int(generator.integers(len(CLASSES)))
        turn = np.deg2rad(generator.uniform(-1, 1) * self.settings.rotation)
        return Shape(label, (centre[0], centre[1]), radius, float(_UPRIGHT[label] + turn))

    def _is_free(self, shape: Shape, others: list[Shape]) -> bool:
        return all(_iou(shape.xyxy, other.xyxy) <= self.settings.overlap for other in others)


def _iou(one: NDArray[np.float32], other: NDArray[np.float32]) -> float:
    sides = np.minimum(one[2:], other[2:]) - np.maximum(one[:2], other[:2])
    common = float(np.prod(np.maximum(sides, 0)))
    return common / float(np.prod(one[2:] - one[:2]) + np.prod(other[2:] - other[:2]) - common)


def _texture(
    settings: SceneSettings, background: NDArray[np.float64], generator: np.random.Generator
) -> NDArray[np.float32]:
    """Smooth colour patches plus finer grey ones, float32 [height, width, 3]."""
    size = (settings.width, settings.height)
    patches = background + generator.normal(0, 18, (5, 5, 3))
    grain = generator.normal(0, 10, (24, 24, 1))
    coarse = cv2.resize(patches.astype(np.float32), size, interpolation=cv2.INTER_CUBIC)
    fine = cv2.resize(grain.astype(np.float32), size, interpolation=cv2.INTER_LINEAR)
    return np.asarray(coarse + fine[:, :, None], np.float32)


def _contrasting(background: NDArray[np.float64], generator: np.random.Generator) -> tuple[float, ...]:
    """A random colour that can be told from the background."""
    while True:
        colour = generator.uniform(0, 255, 3)
        if np.linalg.norm(colour - background) > _CONTRAST:
            return tuple(float(value) for value in colour)


def _draw_distractor(image: NDArray[np.float32], colour: tuple[float, ...], generator: np.random.Generator) -> None:
    """A bar, or a cross of two bars, thinner than any object."""
    height, width = image.shape[:2]
    centre = generator.uniform((0, 0), (width, height))
    angle, length = generator.uniform(0, np.pi), generator.uniform(10, 30)
    for turn in (0, np.pi / 2)[: generator.integers(1, 3)]:
        along = length * np.array([np.cos(angle + turn), np.sin(angle + turn)])
        across = 2.0 * np.array([-along[1], along[0]]) / length
        corners = np.array([along + across, along - across, -along - across, -along + across])
        _fill(image, centre + corners, colour)


def _fill(image: NDArray[np.float32], outline: NDArray[np.float64], colour: tuple[float, ...]) -> None:
    """Paint a polygon with smooth edges."""
    size = np.array(image.shape[1::-1])
    start = np.clip(np.floor(outline.min(axis=0)).astype(int), 0, size)
    sides = np.clip(np.ceil(outline.max(axis=0)).astype(int), 0, size) - start
    if not sides.all():
        return
    left, top, width, height = (int(value) for value in (*start, *sides))
    mask = coverage(outline - start, width, height)[:, :, None]
    window = image[top : top + height, left : left + width]
    window += mask * (np.array(colour, np.float32) - window)


def coverage(outline: NDArray[np.float64], width: int, height: int) -> NDArray[np.float32]:
    """Share of each pixel that a polygon covers, float32 [height, width].

    Drawn large and averaged: OpenCV's own smooth polygons reach almost a pixel beyond their outline.
    """
    mask = np.zeros((height * _OVERSAMPLING, width * _OVERSAMPLING), np.uint8)
    corners = (outline * _OVERSAMPLING - 0.5) * (1 << _SUBPIXEL_BITS)  # OpenCV counts from pixel centres
    cv2.fillPoly(mask, [corners.round().astype(np.int32)], (255,), shift=_SUBPIXEL_BITS)
    small = cv2.resize(mask, (width, height), interpolation=cv2.INTER_AREA)
    return np.asarray(small / np.float32(255), np.float32)
