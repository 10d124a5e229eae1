"""Anchors written into cards: the value changes, nothing else does."""

from pathlib import Path

import numpy as np
import pytest

from yolo_dist.data.anchors import Anchors, kmeans_anchors
from yolo_dist.data.card import find_card
from yolo_dist.data.card_anchors import write_anchors
from yolo_dist.errors import ConfigError

HEAD = """# My card.
name: mine
format: yolo_txt
classes: [cat, dog]  # in this order
"""
SPLITS = "splits: {train: {images: images, annotations: labels}}\n"
FOUND = Anchors(np.array([(10.04, 20), (30.26, 40)], np.float32), 1.0, 0.9)


def test_the_card_line_is_in_tenths_of_pixels() -> None:
    assert FOUND.card_line() == "2: 10,20 30.3,40"


@pytest.mark.parametrize(
    ("card", "expected"),
    [
        pytest.param(HEAD + SPLITS, HEAD + SPLITS + 'anchors:\n  2: "10,20 30.3,40"\n', id="the card has no anchors"),
        pytest.param(
            HEAD + "anchors:  # by hand\n  2: 1,2 3,4  # small\n  1: 5,6\n" + SPLITS,
            HEAD + 'anchors:  # by hand\n  2: "10,20 30.3,40"  # small\n  1: 5,6\n' + SPLITS,
            id="as many are replaced, comments stay",
        ),
        pytest.param(
            HEAD + "anchors:\n  # of the paper\n  1: 5,6\n" + SPLITS,
            HEAD + 'anchors:\n  # of the paper\n  2: "10,20 30.3,40"\n  1: 5,6\n' + SPLITS,
            id="another number stays beside them",
        ),
        pytest.param(
            HEAD + "anchors: {1: '5,6'}\n" + SPLITS,
            HEAD + "anchors: {2: \"10,20 30.3,40\", 1: '5,6'}\n" + SPLITS,
            id="in braces",
        ),
        pytest.param(
            HEAD + "anchors:\n  2: [[1, 2], [3, 4]]\n" + SPLITS,
            HEAD + 'anchors:\n  2: "10,20 30.3,40"\n' + SPLITS,
            id="a list of pairs",
        ),
        pytest.param(
            HEAD + "anchors: {}\n" + SPLITS,
            HEAD + 'anchors: {2: "10,20 30.3,40"}\n' + SPLITS,
            id="empty braces",
        ),
        pytest.param(
            HEAD + SPLITS.rstrip(), HEAD + SPLITS + 'anchors:\n  2: "10,20 30.3,40"\n', id="no line end at the end"
        ),
    ],
)
def test_only_the_anchors_change(tmp_path: Path, card: str, expected: str) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(card)
    write_anchors(path, FOUND, ("cat", "dog"))
    assert path.read_text() == expected
    assert find_card(str(path)).anchors[2] == ((10, 20), (30.3, 40))


@pytest.mark.parametrize(
    ("card", "classes", "message"),
    [
        pytest.param(HEAD + SPLITS, ("dog", "cat"), "its classes are not those of the shards", id="other classes"),
        pytest.param(HEAD, ("cat", "dog"), "splits: required key is missing", id="no card"),
        pytest.param(
            "{name: mine, format: yolo_txt, classes: [cat, dog], splits: {train: {}}}",
            ("cat", "dog"),
            "cannot be edited; write below anchors: 2: 10,20 30.3,40",
            id="a card all in braces",
        ),
    ],
)
def test_a_card_that_cannot_be_edited_stays_as_it_was(
    tmp_path: Path, card: str, classes: tuple[str, ...], message: str
) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(card)
    with pytest.raises(ConfigError, match=message):
        write_anchors(path, FOUND, classes)
    assert path.read_text() == card


def test_a_card_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nowhere\.yaml: cannot be read"):
        write_anchors(tmp_path / "nowhere.yaml", FOUND, ("cat", "dog"))


def test_every_size_belongs_to_the_anchor_that_fits_it_best() -> None:
    sizes = np.array([(10, 20), (11, 22), (300, 200), (290, 210), (5, 5), (6, 5)], np.float32)
    anchors = kmeans_anchors(sizes, 3)
    assert anchors.nearest(sizes).tolist() == [1, 1, 2, 2, 0, 0]
