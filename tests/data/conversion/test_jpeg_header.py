"""Sizes of JPEGs from their headers, with Pillow as the witness."""

import io
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_datasets import jpeg
from PIL import Image

from yolo_dist.data.conversion.jpeg_header import jpeg_size


@settings(deadline=None, max_examples=40)
@given(
    st.integers(1, 700),
    st.integers(1, 700),
    st.fixed_dictionaries(
        {}, optional={"progressive": st.booleans(), "quality": st.integers(1, 95), "comment": st.binary(max_size=300)}
    ),
)
def test_ordinary_files_have_the_size_they_were_made_with(width: int, height: int, options: dict[str, Any]) -> None:
    assert jpeg_size(jpeg(width, height, **options)) == (width, height)


def test_a_thumbnail_in_the_header_is_not_taken_for_the_image() -> None:
    exif = Image.Exif()
    exif[0x010E] = "description"
    thumbnail = jpeg(16, 12)
    data = jpeg(60, 40, exif=exif.tobytes() + thumbnail)
    assert thumbnail in data
    assert jpeg_size(data) == (60, 40)


def encoded(mode: str, kind: str = "JPEG") -> bytes:
    file = io.BytesIO()
    Image.new(mode, (60, 40)).save(file, kind)
    return file.getvalue()


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"\xff\xd8\xff\xd9", id="only start and end"),
        pytest.param(encoded("RGB", "PNG"), id="PNG"),
        pytest.param(encoded("CMYK"), id="four components"),
        pytest.param(jpeg().replace(b"\xff\xc0", b"\xff\xc3", 1), id="lossless"),
        pytest.param(jpeg()[:-1], id="without its end"),
        pytest.param(jpeg() + b"\0\0", id="with something after its end"),
        pytest.param(jpeg()[:2] + b"\0" + jpeg()[2:], id="damaged header"),
        pytest.param(jpeg()[:30] + b"\xff\xd9", id="cut in its header"),
    ],
)
def test_what_is_unusual_is_left_to_a_whole_parser(data: bytes) -> None:
    assert jpeg_size(data) is None


@given(st.binary(max_size=400), st.integers(0, 400))
def test_damage_raises_nothing(noise: bytes, position: int) -> None:
    data = jpeg()
    jpeg_size(data[:position] + noise + data[position + len(noise) :])
    jpeg_size(b"\xff\xd8" + noise + b"\xff\xd9")


def test_real_files_have_the_size_that_pillow_finds(shared_data: Path) -> None:
    files = [path for path in sorted(shared_data.rglob("*.jpg")) if path.stat().st_size]
    quick = 0
    for path in files:
        if (size := jpeg_size(path.read_bytes())) is not None:
            with Image.open(path) as image:
                assert image.size == size, path
            quick += 1
    assert quick > 0.9 * len(files)
