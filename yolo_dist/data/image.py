"""Encoded images to pixels, and pixels to the network's input."""

import io
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, UnidentifiedImageError

from yolo_dist.errors import ImageError

Pixels = NDArray[np.uint8]

MAX_PIXELS = 80_000_000
"""Larger images are refused: decoded they take more than 240 MB."""
PADDING = 114
"""Grey level around a letterboxed image, as the original has it."""

_REDUCED = {
    1: cv2.IMREAD_COLOR_RGB,
    2: cv2.IMREAD_REDUCED_GRAYSCALE_2 | cv2.IMREAD_COLOR_RGB,
    4: cv2.IMREAD_REDUCED_GRAYSCALE_4 | cv2.IMREAD_COLOR_RGB,
    8: cv2.IMREAD_REDUCED_GRAYSCALE_8 | cv2.IMREAD_COLOR_RGB,
}
_JPEG_START = b"\xff\xd8"
_END_MARKER = {"JPEG": b"\xff\xd9", "MPO": b"\xff\xd9", "PNG": b"IEND"}


@dataclass(frozen=True)
class ImageHeader:
    """What an image file says of itself.

    Attributes:
        width, height: of the stored pixels, before any rotation that EXIF asks for.
        orientation: the EXIF tag, 1 to 8; 1 is upright.
        mode: Pillow's name of the pixel format: RGB, L, CMYK, …
        format: JPEG, PNG, …
    """

    width: int
    height: int
    orientation: int
    mode: str
    format: str


def read_header(data: bytes, source: str = "image") -> ImageHeader:
    """The header of an encoded image; no pixel is decoded.

    Raises:
        ImageError: not an image, its end is missing, or it has more than `MAX_PIXELS`; names `source`.
    """
    try:
        with Image.open(io.BytesIO(data)) as image:
            (width, height), mode, kind = image.size, image.mode, image.format or ""
            pixels_start = image.fp.tell() if image.fp is not None else 0
            orientation = _orientation(image)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise ImageError(f"{source}: has more than {MAX_PIXELS} pixels; scale it down") from None
    except UnidentifiedImageError:
        raise ImageError(f"{source}: not an image ({len(data)} bytes); replace or remove it") from None
    except Exception as error:  # Pillow's parsers raise anything on damaged files
        raise ImageError(f"{source}: damaged image: {error}; replace or remove it") from None
    if width * height > MAX_PIXELS:
        raise ImageError(f"{source}: {width}×{height} is more than {MAX_PIXELS} pixels; scale it down")
    if kind in _END_MARKER and data.rfind(_END_MARKER[kind], pixels_start) < 0:
        raise ImageError(f"{source}: truncated after {len(data)} bytes; replace or remove it")
    return ImageHeader(width, height, orientation, mode, kind)


def check_image(data: bytes, source: str = "image") -> ImageHeader:
    """The header of an image that can be decoded, with its pixels as they are stored.

    Raises:
        ImageError: it cannot be decoded, or OpenCV would turn it; names `source`.
    """
    header = read_header(data, source)
    if header.format == "TIFF" and header.orientation > 1:  # IMREAD_IGNORE_ORIENTATION does not hold for it
        raise ImageError(f"{source}: a TIFF with orientation {header.orientation}; save it upright")
    decode_image(data, source=source, trusted=True)
    return header


def _orientation(image: Image.Image) -> int:
    """The EXIF orientation; 1 where there is none, or the EXIF block is damaged, which harms no pixel."""
    try:
        orientation = int(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # Pillow's parsers raise anything on damaged files
        return 1
    return orientation if 1 <= orientation <= 8 else 1


def decode_image(
    data: bytes | memoryview, reduce: int = 1, *, source: str = "image", trusted: bool = False, upright: bool = False
) -> Pixels:
    """An encoded image as uint8 RGB [height, width, 3]; grey and CMYK ones are converted.

    Annotations count in stored pixels, so the rotation that EXIF asks for is not applied unless `upright`.

    Args:
        data: the file's bytes.
        reduce: 1, 2, 4 or 8: decode at this fraction of the size, which is faster for JPEG.
        source: the file's name, for messages.
        trusted: the header was checked before, as that of every image in a shard.
        upright: apply the EXIF rotation, for photographs that have no annotations.

    Raises:
        ImageError: the bytes are not a complete image of bearable size; names `source`.
    """
    if not trusted:
        read_header(bytes(data), source)
    flags = _REDUCED[reduce] | (0 if upright else cv2.IMREAD_IGNORE_ORIENTATION)
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except cv2.error as error:
        raise ImageError(f"{source}: cannot be decoded: {error.err}; replace or remove it") from None
    if image is None:
        raise ImageError(f"{source}: cannot be decoded; replace or remove it")
    return image.astype(np.uint8, copy=False)


def reduction(data: bytes | memoryview, scale: float) -> int:
    """The largest argument of `decode_image` that leaves no fewer pixels than an image scaled by `scale` has.

    1 for everything but JPEG: only its blocks can be decoded at a fraction of their size.
    """
    if bytes(data[:2]) != _JPEG_START:
        return 1
    return max(one for one in _REDUCED if one == 1 or one * scale <= 1)


@dataclass(frozen=True)
class Letterbox:
    """How an image was scaled and padded to the network's input.

    Attributes:
        scale: input pixels per original pixel.
        pad_left, pad_top: padding in input pixels.
        width, height: of the original image.
    """

    scale: float
    pad_left: int
    pad_top: int
    width: int
    height: int

    def forward(self, xyxy: NDArray[np.float32]) -> NDArray[np.float32]:
        """Boxes of the original image in input pixels, float32 [n, 4]."""
        return np.asarray(xyxy * np.float32(self.scale) + self._shift(), np.float32)

    def backward(self, xyxy: NDArray[np.float32]) -> NDArray[np.float32]:
        """Boxes of the input in original pixels, cut at the border of the original, float32 [n, 4]."""
        original = (xyxy - self._shift()) / np.float32(self.scale)
        limits = np.array([self.width, self.height, self.width, self.height], np.float32)
        return np.asarray(np.clip(original, 0, limits), np.float32)

    def _shift(self) -> NDArray[np.float32]:
        return np.array([self.pad_left, self.pad_top, self.pad_left, self.pad_top], np.float32)


def plan_letterbox(width: int, height: int, size: tuple[int, int]) -> Letterbox:
    """The letterbox of a `width` × `height` image in an input of `size` (width, height): whole, centred."""
    scale = min(size[0] / width, size[1] / height)
    inner = _inner_size(scale, width, height)
    return Letterbox(scale, (size[0] - inner[0]) // 2, (size[1] - inner[1]) // 2, width, height)


def letterbox(image: Pixels, size: tuple[int, int]) -> tuple[Pixels, Letterbox]:
    """An image scaled to fit `size` (width, height) and padded with grey.

    Args:
        image: uint8 [h, w, 3].
        size: of the result.

    Returns:
        uint8 [size[1], size[0], 3], and how it got there.
    """
    canvas = np.empty((size[1], size[0], 3), np.uint8)
    return canvas, letterbox_into(image, canvas)


def letterbox_into(image: Pixels, canvas: Pixels, box: Letterbox | None = None) -> Letterbox:
    """`letterbox` into an array that exists, uint8 [height, width, 3], all of which is overwritten.

    An image that was decoded at a fraction of its size comes with the `box` planned for its whole size.
    """
    if box is None:
        height, width = image.shape[:2]
        box = plan_letterbox(width, height, (canvas.shape[1], canvas.shape[0]))
    inner = _inner_size(box.scale, box.width, box.height)
    right, bottom = box.pad_left + inner[0], box.pad_top + inner[1]
    canvas[: box.pad_top], canvas[bottom:] = PADDING, PADDING
    canvas[box.pad_top : bottom, : box.pad_left], canvas[box.pad_top : bottom, right:] = PADDING, PADDING
    resize_into(image, canvas[box.pad_top : bottom, box.pad_left : right])
    return box


def resize_into(image: Pixels, window: Pixels) -> None:
    """Scale an image to the size of a window (which may be part of a larger array) and write it there."""
    size = (window.shape[1], window.shape[0])
    if cv2.resize(image, size, dst=window, interpolation=cv2.INTER_LINEAR) is not window:
        raise RuntimeError("cv2.resize did not write into the array it was given")


def _inner_size(scale: float, width: int, height: int) -> tuple[int, int]:
    return max(1, round(width * scale)), max(1, round(height * scale))
