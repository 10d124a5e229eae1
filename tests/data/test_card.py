"""Cards: those that come along, those a user writes, those with mistakes."""

from pathlib import Path

import pytest

from yolo_dist.data.card import card_names, find_card
from yolo_dist.data.formats import reader
from yolo_dist.errors import ConfigError

MINIMAL = """
name: mine
format: yolo_txt
classes: [cat, dog]
splits:
  train: {images: images, annotations: labels}
"""


@pytest.fixture
def card_file(tmp_path: Path) -> Path:
    path = tmp_path / "mine.yaml"
    path.write_text(MINIMAL)
    return path


@pytest.mark.parametrize("name", card_names())
def test_cards_that_come_along_are_complete(name: str) -> None:
    card = find_card(name)
    assert card.name == name
    assert "train" in card.splits
    assert card.title
    assert card.licence
    assert callable(reader(card.format))
    for anchors in card.anchors.values():
        areas = [width * height for width, height in anchors]
        assert len(areas) in (6, 9)
        assert all(area > 0 for area in areas)


@pytest.mark.parametrize(
    ("name", "classes", "first", "last"),
    [
        ("bccd", 3, "RBC", "Platelets"),
        ("shapes", 3, "circle", "triangle"),
        ("coco2014", 80, "person", "toothbrush"),
        ("coco2017", 80, "person", "toothbrush"),
        ("dior", 20, "airplane", "overpass"),
    ],
)
def test_classes_are_in_the_published_order(name: str, classes: int, first: str, last: str) -> None:
    card = find_card(name)
    assert (len(card.classes), card.classes[0], card.classes[-1]) == (classes, first, last)


def test_published_anchors_are_read_as_a_cfg_writes_them() -> None:
    card = find_card("coco2017")
    assert card.anchors[9][:2] == ((10, 13), (16, 30))
    assert card.anchors[6][-1] == (344, 319)
    assert card.anchors["yolov4"][0] == (12, 16)


def test_darknet_names_of_coco_classes_are_aliases() -> None:
    numbers = find_card("coco2017").class_numbers()
    assert numbers["tvmonitor"] == numbers["tv"]


def test_a_card_of_ones_own_is_found_by_its_path(card_file: Path) -> None:
    card = find_card(str(card_file))
    assert card.class_numbers() == {"cat": 0, "dog": 1}
    assert card.max_detections == 100


def test_an_unknown_name_brings_the_closest() -> None:
    with pytest.raises(ConfigError, match="dataset coco2015: there is no such card; did you mean coco201"):
        find_card("coco2015")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nowhere\.yaml: cannot be read: No such file"):
        find_card(str(tmp_path / "nowhere.yaml"))


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ("format: yolo_txt", "formt: yolo_txt", "formt: unknown key"),
        ("format: yolo_txt", "formt: yolo_txt", "format: required key is missing"),
        ("[cat, dog]", "[]", "classes: "),
        ("[cat, dog]", "[cat, cat]", "class 'cat' is listed twice"),
        ("format:", "aliases: {kitten: lion}\nformat:", "alias 'kitten' stands for 'lion', which is not a class"),
        ("format:", "anchors: {6: '1,2 3,4'}\nformat:", "anchors 6 lists 2 of them"),
        ("format:", "anchors: {6: '1,2,3'}\nformat:", "anchors.6"),
        ("images: images", "image: images", "splits.train.image: unknown key"),
        ("name: mine", "name: a/b", "name: "),
        ("splits:", "splits: [", "while parsing"),
        (MINIMAL, "- 3", "must be a mapping"),
    ],
)
def test_mistakes_in_a_card_are_named_with_file_and_key(card_file: Path, old: str, new: str, problem: str) -> None:
    card_file.write_text(MINIMAL.replace(old, new))
    with pytest.raises(ConfigError) as caught:
        find_card(str(card_file))
    assert problem in str(caught.value)
    assert all(line.startswith(str(card_file)) for line in str(caught.value).splitlines())


def test_splits_of_generated_scenes_may_not_share_a_seed(card_file: Path) -> None:
    card_file.write_text(
        "{name: s, format: shapes, classes: [circle, square, triangle], "
        "splits: {train: {generate: {seed: 1}}, val: {generate: {seed: 1}}}}"
    )
    with pytest.raises(ConfigError, match="splits share seed 1"):
        find_card(str(card_file))


def test_a_split_the_card_does_not_have_is_refused_with_those_it_has() -> None:
    with pytest.raises(ConfigError, match="no split 'dev'; choose from train, val"):
        find_card("shapes").split("dev")


def test_an_unknown_format_brings_the_closest() -> None:
    with pytest.raises(ConfigError, match="no annotation format 'voc_xlm'; did you mean voc_xml"):
        reader("voc_xlm")
