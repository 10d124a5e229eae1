"""Classes of several cards as one list: by name, by alias, and never two of one card as one."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from yolo_dist.data.annotations import ANY_CLASS
from yolo_dist.data.card import Card, SplitSource, card_names, find_card
from yolo_dist.data.joint_classes import join_classes, joint_card
from yolo_dist.errors import ConfigError


def card(name: str, classes: str, **aliases: str) -> Card:
    splits = {"train": SplitSource()}
    return Card(name=name, format="yolo_txt", classes=tuple(classes.split()), aliases=aliases, splits=splits)


def test_classes_of_one_name_are_one_in_the_order_of_their_first_appearance() -> None:
    joint = join_classes([card("street", "car person"), card("home", "cat person dog")])
    assert joint.names == ("car", "person", "cat", "dog")
    assert [numbers.tolist() for numbers in joint.numbers] == [[0, 1], [2, 1, 3]]
    assert joint.known.tolist() == [[True, True, False, False], [False, True, True, True]]


@pytest.mark.parametrize(
    ("first", "second"),
    [
        pytest.param(card("a", "bike", bicycle="bike"), card("b", "bicycle"), id="an alias of the first"),
        pytest.param(card("a", "bike"), card("b", "bicycle", bike="bicycle"), id="an alias of the second"),
        pytest.param(card("a", "bike", velo="bike"), card("b", "bicycle", velo="bicycle"), id="of both"),
    ],
)
def test_an_alias_joins_and_the_first_card_names_the_class(first: Card, second: Card) -> None:
    assert join_classes([first, second]).names == ("bike",)
    assert join_classes([second, first]).names == ("bicycle",)


def test_a_later_card_joins_what_two_earlier_ones_kept_apart() -> None:
    joint = join_classes(
        [card("a", "cat bike"), card("b", "bicycle dog"), card("c", "velo", bike="velo", bicycle="velo")]
    )
    assert joint.names == ("cat", "bike", "dog")
    assert [numbers.tolist() for numbers in joint.numbers] == [[0, 1], [1, 2], [1]]


def test_labels_become_joint_ones_and_regions_of_any_class_stay() -> None:
    joint = join_classes([card("street", "car person"), card("home", "cat person dog")])
    labels = joint.joint_labels(1, np.array([2, ANY_CLASS, 0, 1], np.int32))
    assert labels.tolist() == [3, ANY_CLASS, 2, 1]
    assert labels.dtype == np.int32
    assert joint.joint_labels(0, np.zeros(0, np.int32)).shape == (0,)


def test_two_classes_of_one_card_that_would_become_one_are_refused() -> None:
    street = card("street", "car van", lorry="van")
    with pytest.raises(ConfigError) as caught:
        join_classes([street, card("b", "auto bike", car="auto", van="auto")])
    assert caught.value.problems == [
        "the classes car and van of street would become one, joined by the names auto, car, lorry, van; "
        "leave an alias out of a copy of a card"
    ]


def test_an_alias_that_reaches_two_classes_of_another_card_is_refused() -> None:
    two = card("two", "motorbike bicycle", bike="motorbike")
    with pytest.raises(ConfigError, match=r"^mix: the classes motorbike and bicycle of two would become one"):
        join_classes([card("one", "bike", bicycle="bike"), two])


def test_drones_and_everyday_photographs_share_five_classes() -> None:
    visdrone, coco = find_card("visdrone"), find_card("coco2017")
    joint = join_classes([visdrone, coco])
    assert len(joint.names) == 85
    assert joint.names[:10] == visdrone.classes
    assert [name for number, name in enumerate(joint.names) if joint.known[:, number].all()] == [
        *("bicycle", "car", "truck", "bus", "motor"),
    ]
    assert joint.numbers[1][coco.classes.index("motorcycle")] == visdrone.classes.index("motor")


def test_the_vans_of_drones_are_cars_from_behind_windscreens() -> None:
    with pytest.raises(ConfigError, match="car and van of visdrone would become one"):
        join_classes([find_card("visdrone"), find_card("bdd100k")])


def test_the_joint_card_says_what_all_cards_agree_on() -> None:
    visdrone, coco = find_card("visdrone"), find_card("coco2017")
    joint = joint_card([visdrone, coco], join_classes([visdrone, coco]))
    assert joint.name == "visdrone+coco2017"
    assert len(joint.classes) == 85
    assert joint.anchors == visdrone.anchors  # without those for yolov4, which only coco has
    assert joint.max_detections == 500
    dior = find_card("dior")
    assert joint_card([visdrone, dior], join_classes([visdrone, dior])).anchors == {
        key: sizes for key, sizes in visdrone.anchors.items() if dior.anchors.get(key) == sizes
    }


NAMES = st.sampled_from([f"class{number}" for number in range(8)])


@given(st.lists(st.lists(NAMES, unique=True, min_size=1), min_size=1, max_size=4))
def test_without_aliases_the_joint_list_is_the_union_in_order(classes: list[list[str]]) -> None:
    cards = [card(f"card{number}", " ".join(own)) for number, own in enumerate(classes)]
    joint = join_classes(cards)
    assert joint.names == tuple(dict.fromkeys(itertools.chain(*classes)))
    for own, numbers in zip(classes, joint.numbers, strict=True):
        assert [joint.names[number] for number in numbers] == own


@pytest.mark.parametrize("name", card_names())
def test_a_card_that_comes_along_joined_with_itself_is_itself(name: str) -> None:
    found = find_card(name)
    joint = join_classes([found, found])
    assert joint.names == found.classes
    assert joint.known.all()
