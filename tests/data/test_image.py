"""Decoding and letterboxing, good files and bad ones."""

import io

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from yolo_dist.data.image import (
    MAX_PIXELS,
    Pixels,
    check_image,
    decode_image,
    letterbox,
    plan_letterbox,
    read_header,
    reduction,
)
from yolo_dist.errors import ImageError

RED, GREEN, BLUE = (220, 30, 30), (30, 220, 30), (30, 30, 220)


def quartered(width: int = 64, height: int = 48) -> Image.Image:
    """Red above left, green above right, blue below."""
    image = Image.new("RGB", (width, height), BLUE)
    image.paste(RED, (0, 0, width // 2, height // 2))
    image.paste(GREEN, (width // 2, 0, width, height // 2))
    return image


def encoded(image: Image.Image, kind: str = "JPEG", **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def rotated_by_exif(orientation: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return encoded(quartered(), exif=exif)


def corners(image: Pixels) -> list[tuple[int, ...]]:
    """Colours near the four corners, rounded so that JPEG's losses vanish."""
    height, width = image.shape[:2]
    points = [(5, 5), (width - 6, 5), (5, height - 6), (width - 6, height - 6)]
    return [tuple((image[y, x] > 128).tolist()) for x, y in points]


UPRIGHT = [(True, False, False), (False, True, False), (False, False, True), (False, False, True)]


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "BMP", "TIFF", "WEBP"])
def test_pixels_come_back_as_rgb(kind: str) -> None:
    data = encoded(quartered(), kind)
    image = decode_image(data)
    assert image.shape == (48, 64, 3)
    assert image.dtype == np.uint8
    assert corners(image) == UPRIGHT
    assert (read_header(data).width, read_header(data).height) == (64, 48)


def test_lossless_pixels_are_exact() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (9, 7, 3)).astype(np.uint8)
    assert (decode_image(encoded(Image.fromarray(pixels), "PNG")) == pixels).all()


@pytest.mark.parametrize(
    ("image", "kind", "mode"),
    [
        pytest.param(quartered().convert("L"), "JPEG", "L", id="grey JPEG"),
        pytest.param(quartered().convert("CMYK"), "JPEG", "CMYK", id="CMYK JPEG"),
        pytest.param(quartered().convert("RGBA"), "PNG", "RGBA", id="PNG with alpha"),
        pytest.param(quartered().convert("P"), "PNG", "P", id="PNG with palette"),
    ],
)
def test_other_pixel_formats_become_rgb(image: Image.Image, kind: str, mode: str) -> None:
    data = encoded(image, kind)
    decoded = decode_image(data)
    assert decoded.shape == (48, 64, 3)
    assert read_header(data).mode == mode
    expected = np.asarray(image.convert("RGB"), np.int16)
    assert np.abs(decoded.astype(np.int16) - expected).mean() < 12


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_rotation_is_left_out_so_that_boxes_stay_on_their_pixels(orientation: int) -> None:
    data = rotated_by_exif(orientation)
    header = read_header(data)
    assert (header.width, header.height, header.orientation) == (64, 48, orientation)
    assert corners(decode_image(data)) == UPRIGHT
    assert decode_image(data, upright=True).shape[:2] == ((64, 48) if orientation >= 5 else (48, 64))


@pytest.mark.parametrize("frame", [0xC3, 0xC5, 0xCB], ids=["lossless", "hierarchical", "lossless arithmetic"])
def test_a_jpeg_of_a_kind_that_nothing_decodes_is_refused_at_once(frame: int) -> None:
    data = encoded(quartered()).replace(b"\xff\xc0", bytes([0xFF, frame]), 1)
    with pytest.raises(ImageError, match=r"^a\.jpg: cannot be decoded; replace or remove it"):
        check_image(data, "a.jpg")


def test_reduced_decoding_gives_a_smaller_picture_of_the_same() -> None:
    image = decode_image(encoded(quartered(128, 96)), reduce=2)
    assert image.shape == (48, 64, 3)
    assert corners(image) == UPRIGHT


@pytest.mark.parametrize(
    ("scale", "expected"),
    [(2, 1), (1, 1), (0.51, 1), (0.5, 2), (416 / 1280, 2), (0.25, 4), (0.13, 4), (0.125, 8), (0.01, 8)],
)
def test_jpegs_are_decoded_as_small_as_their_use_allows(scale: float, expected: int) -> None:
    assert reduction(encoded(quartered()), scale) == expected
    assert reduction(encoded(quartered(), "PNG"), scale) == 1


def with_thumbnail() -> bytes:
    """A JPEG whose EXIF block holds a complete small JPEG, end marker included."""
    thumbnail = encoded(quartered(16, 16))
    data = encoded(quartered())
    segment = b"\xff\xe1" + (len(thumbnail) + 8).to_bytes(2, "big") + b"Exif\0\0" + thumbnail
    return data[:2] + segment + data[2:]


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        pytest.param(encoded(quartered())[:-40], "truncated", id="JPEG cut near its end"),
        pytest.param(encoded(quartered())[:100], "damaged|truncated|not an image", id="JPEG cut in its header"),
        pytest.param(with_thumbnail()[:-40], "truncated", id="cut JPEG whose thumbnail is complete"),
        pytest.param(encoded(quartered(), "PNG")[:-20], "truncated", id="cut PNG"),
        pytest.param(b"", "not an image", id="empty file"),
        pytest.param(b"<html>404</html>", "not an image", id="an error page"),
    ],
)
def test_incomplete_files_are_refused_by_name(data: bytes, expected: str) -> None:
    with pytest.raises(ImageError, match=rf"^a/b\.jpg: .*({expected})"):
        decode_image(data, source="a/b.jpg")


def test_a_damaged_exif_block_does_not_cost_the_image() -> None:
    assert corners(decode_image(with_thumbnail())) == UPRIGHT
    assert read_header(with_thumbnail()).orientation == 1


def test_trailing_bytes_after_a_complete_jpeg_do_no_harm() -> None:
    assert corners(decode_image(encoded(quartered()) + b"\0" * 100)) == UPRIGHT


@pytest.mark.parametrize("side", [MAX_PIXELS // 20_000 + 1, 10_000], ids=["just above the limit", "a bomb"])
def test_images_that_would_fill_the_memory_are_refused_before_they_are_decoded(side: int) -> None:
    data = encoded(Image.new("1", (20_000, side)), "PNG")
    with pytest.raises(ImageError, match=rf"huge\.png: .*{MAX_PIXELS} pixels"):
        decode_image(data, source="huge.png")


@settings(deadline=None)
@given(st.binary(max_size=200))
def test_no_bytes_raise_anything_but_an_image_error(tail: bytes) -> None:
    for head in (b"", b"\xff\xd8\xff\xe0", b"\x89PNG\r\n\x1a\n", encoded(quartered())[:300]):
        try:
            decode_image(head + tail)
        except ImageError:
            continue


sizes = st.tuples(st.integers(1, 400), st.integers(1, 400))
inputs = st.tuples(st.integers(1, 13), st.integers(1, 13)).map(lambda cells: (cells[0] * 32, cells[1] * 32))


@settings(deadline=None)
@given(sizes, inputs)
def test_a_letterboxed_image_lies_whole_and_centred_in_the_input(
    original: tuple[int, int], size: tuple[int, int]
) -> None:
    box = plan_letterbox(*original, size)
    left, top, right, bottom = box.forward(np.array([[0, 0, *original]], np.float32))[0]
    assert -0.01 <= left <= right <= size[0] + 0.51
    assert -0.01 <= top <= bottom <= size[1] + 0.51
    assert abs(left - (size[0] - right)) <= 2
    assert abs(top - (size[1] - bottom)) <= 2


@settings(deadline=None)
@given(sizes, inputs, st.integers(0, 2**32 - 1))
def test_boxes_come_back_from_the_input_to_their_place(
    original: tuple[int, int], size: tuple[int, int], seed: int
) -> None:
    generator = np.random.default_rng(seed)
    points = np.sort(generator.uniform(0, 1, (5, 2, 2)), axis=1).reshape(5, 4)
    xyxy = (points * [*original, *original]).astype(np.float32)
    box = plan_letterbox(*original, size)
    np.testing.assert_allclose(box.backward(box.forward(xyxy)), xyxy, atol=0.02)


def test_boxes_of_the_padding_are_cut_at_the_border_of_the_original() -> None:
    box = plan_letterbox(100, 50, (64, 64))
    assert box.backward(np.array([[-5, 0, 70, 64]], np.float32)).tolist() == [[0, 0, 100, 50]]


@pytest.mark.parametrize("size", [(64, 64), (96, 32), (32, 96), (416, 416)])
def test_letterboxed_pixels_equal_a_plain_resize_with_grey_around(size: tuple[int, int]) -> None:
    image = decode_image(encoded(quartered(80, 50)))
    canvas, box = letterbox(image, size)
    inner = (round(80 * box.scale), round(50 * box.scale))
    expected = np.full((size[1], size[0], 3), 114, np.uint8)
    window = expected[box.pad_top : box.pad_top + inner[1], box.pad_left : box.pad_left + inner[0]]
    window[:] = cv2.resize(image, inner)
    assert (canvas == expected).all()


def test_a_bright_object_is_where_its_box_says_after_letterboxing() -> None:
    image = np.zeros((200, 300, 3), np.uint8)
    image[60:140, 90:210] = 255
    canvas, box = letterbox(image, (128, 96))
    left, top, right, bottom = box.forward(np.array([[90, 60, 210, 140]], np.float32))[0]
    ys, xs = np.nonzero(canvas[:, :, 0] > 127)
    assert abs(xs.min() - left) <= 1
    assert abs(ys.min() - top) <= 1
    assert abs(xs.max() + 1 - right) <= 1
    assert abs(ys.max() + 1 - bottom) <= 1
