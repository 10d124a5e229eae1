"""Cards: those that come along, those a user writes, those with mistakes."""

from pathlib import Path

import pytest
from upath import UPath

from yolo_dist.data.card import SplitSource, card_names, find_card
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
    assert callable(reader(card))
    for anchors in card.anchors.values():
        areas = [width * height for width, height in anchors]
        assert len(areas) in (6, 9)
        assert all(area > 0 for area in areas)


CLASSES = {
    "hand": "hand",
    "bccd": "RBC, WBC, Platelets",
    "shapes": "circle, square, triangle",
    "bdd100k": "car, bus, person, bike, truck, motor, train, rider, traffic sign, traffic light",
    "visdrone": "pedestrian, people, bicycle, car, van, truck, tricycle, awning-tricycle, bus, motor",
    "dior": "airplane, airport, baseballfield, basketballcourt, bridge, chimney, dam, Expressway-Service-area, "
    "Expressway-toll-station, golffield, groundtrackfield, harbor, ship, stadium, storagetank, tenniscourt, "
    "trainstation, vehicle, windmill, overpass",
    "coco2017": "person, bicycle, car, motorcycle, airplane, bus, train, truck, boat, traffic light, fire hydrant, "
    "stop sign, parking meter, bench, bird, cat, dog, horse, sheep, cow, elephant, bear, zebra, giraffe, backpack, "
    "umbrella, handbag, tie, suitcase, frisbee, skis, snowboard, sports ball, kite, baseball bat, baseball glove, "
    "skateboard, surfboard, tennis racket, bottle, wine glass, cup, fork, knife, spoon, bowl, banana, apple, "
    "sandwich, orange, broccoli, carrot, hot dog, pizza, donut, cake, chair, couch, potted plant, bed, dining table, "
    "toilet, tv, laptop, mouse, remote, keyboard, cell phone, microwave, oven, toaster, sink, refrigerator, book, "
    "clock, vase, scissors, teddy bear, hair drier, toothbrush",
}
CLASSES["coco2014"] = CLASSES["coco2017"]

COCO_ANCHORS: dict[int | str, str] = {
    9: "10,13 16,30 33,23 30,61 62,45 59,119 116,90 156,198 373,326",
    6: "10,14 23,27 37,58 81,82 135,169 344,319",
}
COCO_YOLOV4: dict[int | str, str] = {"yolov4": "12,16 19,36 40,28 36,75 76,55 72,146 142,110 192,243 459,401"}
ANCHORS: dict[str, dict[int | str, str]] = {
    "hand": {
        9: "8,13 14,20 22,25 26,36 35,49 40,31 51,69 63,47 94,103",
        6: "9,13 16,22 27,38 28,27 44,49 79,83",
    },
    "bdd100k": {
        9: "3,7 5,18 6,9 10,32 11,14 17,21 24,36 45,59 93,132",
        6: "3,7 5,18 7,10 12,20 26,38 70,96",
    },
    "dior": {
        9: "5,5 6,13 10,26 13,6 15,15 27,10 28,33 61,74 167,169",
        6: "5,5 8,15 17,9 22,27 54,65 152,155",
    },
    "visdrone": COCO_ANCHORS,
    "coco2014": COCO_ANCHORS | COCO_YOLOV4,
    "coco2017": COCO_ANCHORS | COCO_YOLOV4,
    "bccd": {},
    "shapes": {},
}


@pytest.mark.parametrize("name", card_names())
def test_classes_are_in_the_published_order(name: str) -> None:
    assert ", ".join(find_card(name).classes) == CLASSES[name]


@pytest.mark.parametrize("name", card_names())
def test_anchors_are_the_published_ones(name: str) -> None:
    found = {
        key: " ".join(f"{width:g},{height:g}" for width, height in anchors)
        for key, anchors in find_card(name).anchors.items()
    }
    assert found == ANCHORS[name]


@pytest.mark.parametrize("name", card_names())
def test_splits_of_a_card_do_not_hold_the_same_images(name: str) -> None:
    card = find_card(name)
    assert list(card.splits)[:2] == ["train", "val"]
    contents = [(split.images, split.list, split.generate) for split in card.splits.values()]
    assert len({str(content) for content in contents}) == len(contents)


def test_only_visdrone_counts_more_than_a_hundred_detections_an_image() -> None:
    counts = {name: find_card(name).max_detections for name in card_names()}
    assert counts.pop("visdrone") == 500
    assert set(counts.values()) == {100}


@pytest.mark.parametrize(
    ("newer", "name"),
    [("pedestrian", "person"), ("bicycle", "bike"), ("motorcycle", "motor"), ("van", "car"), ("caravan", "car")],
)
def test_newer_names_of_bdd100k_are_aliases(newer: str, name: str) -> None:
    numbers = find_card("bdd100k").class_numbers()
    assert numbers[newer] == numbers[name]


@pytest.mark.parametrize(
    ("there", "used"),
    [
        (["old.json", "new.json"], "old.json"),
        (["new.json"], "new.json"),
        (["frames"], "frames"),
        (["frames", "new.json"], "new.json"),
        ([], "old.json"),
    ],
)
def test_the_first_edition_of_the_annotations_that_is_there_is_used(
    tmp_path: Path, there: list[str], used: str
) -> None:
    split = SplitSource(annotations="old.json", alternatives=("new.json", "frames"))
    for name in there:
        (tmp_path / name).touch()
    assert split.at(UPath(tmp_path)).annotations == used


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
    card = find_card("bccd").model_copy(update={"format": "voc_xlm"})
    with pytest.raises(ConfigError, match=r"dataset bccd: format: there is no .* 'voc_xlm'; did you mean voc_xml"):
        reader(card)
