"""Oxford Hand's MATLAB files; SciPy, which reads and writes them too, is the witness."""

import io
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.io import loadmat, savemat

from yolo_dist.data.formats.hand_mat import parse
from yolo_dist.errors import AnnotationError


def hand(*corners: tuple[float, float], **fields: Any) -> dict[str, Any]:
    """A struct as the dataset nests it: corners a, b, c, d as [y, x]."""
    return {name: np.array([corner], float) for name, corner in zip("abcd", corners, strict=False)} | fields


def annotation(hands: list[dict[str, Any]], *, compressed: bool = False) -> bytes:
    """A file whose `boxes` is a 1×N cell of such structs, written by SciPy."""
    cells = np.empty((1, len(hands)), object)
    for number, one in enumerate(hands):
        cells[0, number] = one
    buffer = io.BytesIO()
    savemat(buffer, {"boxes": cells}, do_compression=compressed)
    return buffer.getvalue()


TURNED = ((20, 10), (10, 30), (30, 50), (40, 25))


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize(
    "fields",
    [
        pytest.param({"side": "L"}, id="left or right is given"),
        pytest.param({"side": ""}, id="left or right is empty"),
        pytest.param({}, id="left or right is missing"),
    ],
)
def test_a_hand_is_the_upright_rectangle_around_its_corners(fields: dict[str, Any], compressed: bool) -> None:
    boxes, rejected = parse(annotation([hand(*TURNED, **fields)], compressed=compressed))
    assert boxes.xyxy.tolist() == [[9.5, 9.5, 49.5, 39.5]]  # MATLAB counts from 1, from the pixel's centre
    assert (boxes.labels.tolist(), boxes.ignore.tolist(), rejected) == ([0], [False], ())


@pytest.mark.parametrize("count", [0, 1, 2, 7])
def test_every_hand_of_an_image_is_found(count: int) -> None:
    shifted = [hand(*((y + 3 * number, x) for y, x in TURNED)) for number in range(count)]
    boxes, rejected = parse(annotation(shifted))
    assert boxes.xyxy[:, 1].tolist() == [9.5 + 3 * number for number in range(count)]
    assert rejected == ()


@pytest.mark.parametrize(
    ("broken", "reason"),
    [
        pytest.param(hand(*TURNED[:3]), "bad number", id="a corner is missing"),
        pytest.param(hand(*TURNED[:3], d=np.zeros((0, 0))), "bad number", id="a corner is empty"),
        pytest.param(hand(*((5.0, 5.0) for _ in range(4))), "zero area", id="zero area"),
    ],
)
def test_a_hand_without_a_box_is_named_and_the_others_are_kept(broken: dict[str, Any], reason: str) -> None:
    boxes, rejected = parse(annotation([hand(*TURNED), broken, hand(*TURNED)]), "film_1.mat")
    assert len(boxes) == 2
    assert [one.reason for one in rejected] == [reason]
    assert "film_1.mat: box 2" in str(rejected[0])


def test_a_file_without_boxes_says_so() -> None:
    buffer = io.BytesIO()
    savemat(buffer, {"other": np.zeros(3)})
    with pytest.raises(AnnotationError, match=r"film.mat: holds no cell array named boxes"):
        parse(buffer.getvalue(), "film.mat")


@pytest.mark.parametrize("length", [0, 5, 127, 130, 300])
def test_a_cut_file_says_so(length: int) -> None:
    with pytest.raises(AnnotationError, match=r"^film\.mat: "):
        parse(annotation([hand(*TURNED)])[:length], "film.mat")


@pytest.mark.parametrize("compressed", [False, True])
def test_damaged_files_are_read_or_refused_but_never_end_the_process(compressed: bool) -> None:
    content, generator = annotation([hand(*TURNED, side="L")], compressed=compressed), random.Random(0)
    for _ in range(1000):
        damaged = bytearray(content)
        for _ in range(generator.randint(1, 4)):
            damaged[generator.randrange(len(damaged))] = generator.randrange(256)
        try:
            parse(bytes(damaged), "film.mat")
        except AnnotationError as error:
            assert "\n" not in str(error)  # noqa: PT017 - either outcome is right


def test_the_real_nesting_reads_as_scipy_reads_it(shared_data: Path) -> None:
    file = shared_data / "hand" / "Buffy_1.mat"
    boxes, rejected = parse(file.read_bytes(), file.name)
    structs = [cell[0, 0] for cell in loadmat(file)["boxes"][0]]
    corners = np.array([[one[name][0] for name in "abcd"] for one in structs]) - 0.5
    expected = np.concatenate([corners.min(axis=1)[:, ::-1], corners.max(axis=1)[:, ::-1]], axis=1)
    assert boxes.xyxy.tolist() == expected.tolist()
    assert rejected == ()
