"""The anchors command: a cfg line, a card line, a picture, and a card of one's own."""

from pathlib import Path

import cv2
import pytest
import tiny
from command_line import done, refused

from yolo_dist.darknet.cfg import Yolo, parse_cfg
from yolo_dist.data.card import find_card


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.write_shards(tmp_path_factory.mktemp("data"))


def test_the_line_for_a_cfg_is_one_that_a_cfg_takes(shards: Path) -> None:
    result = done("anchors", shards, "--num", "3", "--image-size", "64", "--json").json()
    cfg = parse_cfg(tiny.CFG.replace("anchors=16,16, 24,24, 32,32", result["cfg"]), "tiny.cfg")
    head = next(layer for layer in cfg.layers if isinstance(layer, Yolo))
    assert [list(anchor) for anchor in head.anchors] == [[round(side) for side in size] for size in result["anchors"]]


def test_the_fit_is_told_and_grows_with_the_number(shards: Path) -> None:
    one, nine = (done("anchors", shards, "--num", number, "--json").json() for number in ("1", "9"))
    assert len(nine["anchors"]) == 9
    assert 0.5 < one["mean_iou"] < nine["mean_iou"] <= 1
    assert nine["best_possible_recall"] == 1
    out = done("anchors", shards, "--num", "9").out
    assert f"best possible recall 1.0000, mean IoU {nine['mean_iou']:.4f}" in out
    assert nine["cfg"] in out
    assert nine["card"] in out


def test_sizes_are_those_at_the_image_size(shards: Path) -> None:
    small, large = (
        done("anchors", shards, "--num", "1", "--image-size", size, "--json").json() for size in ("64", "128x256")
    )
    assert large["image_size"] == [128, 256]
    assert large["anchors"][0] == pytest.approx([2 * side for side in small["anchors"][0]], rel=0.05)


def test_the_split_is_chosen_and_the_seed_repeats(shards: Path) -> None:
    train, val, again = (
        done("anchors", shards, "--num", "2", "--json", *options).json()
        for options in ([], ["--split", "val"], ["--seed", "0"])
    )
    assert train == again
    assert (train["boxes"], train["anchors"]) != (val["boxes"], val["anchors"])


def test_a_picture_is_drawn(shards: Path, tmp_path: Path) -> None:
    picture = tmp_path / "pictures" / "anchors.png"
    assert f"written:    {picture}" in done("anchors", shards, "--num", "3", "--out", picture).out
    pixels = cv2.imread(str(picture))
    assert pixels is not None
    assert pixels.shape[0] == pixels.shape[1]


def test_they_go_into_a_card_of_ones_own(shards: Path, tmp_path: Path) -> None:
    card = tiny.write_card(tmp_path)
    result = done("anchors", shards, "--num", "6", "--card", card, "--json").json()
    written = find_card(str(card)).anchors[6]
    assert [list(anchor) for anchor in written] == [[round(side, 1) for side in size] for size in result["anchors"]]
    assert card.read_text().startswith(tiny.CARD.rstrip())


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        (["--image-size", "100"], "--image-size: 100 is no size: 416 or 320x256, multiples of 32"),
        (["--split", "night"], "split 'night' is not converted, it holds train, val"),
        (["--card", "nowhere.yaml"], "nowhere.yaml: cannot be read: No such file"),
    ],
)
def test_wrong_options_are_named(shards: Path, options: list[str], problem: str) -> None:
    (error,) = refused("anchors", shards, *options)
    assert problem in error


def test_a_card_of_other_classes_is_refused_and_nothing_is_written(shards: Path, tmp_path: Path) -> None:
    card = tiny.write_card(tmp_path)
    other = card.read_text().replace("classes: [circle, square, triangle]", "classes: [square, circle, triangle]")
    card.write_text(other)
    (error,) = refused("anchors", shards, "--card", card, "--out", tmp_path / "anchors.png")
    assert error.startswith(f"{card}: its classes are not those of the shards")
    assert card.read_text() == other
    assert not (tmp_path / "anchors.png").exists()
