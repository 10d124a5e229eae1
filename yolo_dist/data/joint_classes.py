"""The classes of several datasets as one list: those that share a name, or an alias, are one."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from yolo_dist.data.annotations import ANY_CLASS
from yolo_dist.data.card import Card
from yolo_dist.errors import ConfigError

Member = tuple[int, int]
"""Number of a source, and of a class in it."""


@dataclass(frozen=True)
class JointClasses:
    """The classes of several sources as one list.

    Attributes:
        names: each as the first source that has it calls it, in the order in which they first appear.
        numbers: for each source the joint number of each of its classes, int32 [classes of the source].
    """

    names: tuple[str, ...]
    numbers: tuple[NDArray[np.int32], ...]

    @property
    def known(self) -> NDArray[np.bool_]:
        """Which classes each source labels, bool [sources, classes]."""
        known = np.zeros((len(self.numbers), len(self.names)), np.bool_)
        for source, numbers in enumerate(self.numbers):
            known[source, numbers] = True
        return known

    def joint_labels(self, source: int, labels: NDArray[np.int32]) -> NDArray[np.int32]:
        """Labels of a source as joint ones, int32 [n]; `ANY_CLASS` stays what it is."""
        return np.append(self.numbers[source], np.int32(ANY_CLASS))[labels]


@dataclass
class _Group:
    """Classes that are one, and all their names."""

    names: set[str]
    members: list[Member] = field(default_factory=list)


def join_classes(cards: Sequence[Card]) -> JointClasses:
    """Join the classes of several cards by name, aliases included.

    Raises:
        ConfigError: two classes of one card would become one; lists all such cases.
    """
    groups: list[_Group] = []
    for source, card in enumerate(cards):
        for number, name in enumerate(card.classes):
            _add(groups, (source, number), {name, *(alias for alias, of in card.aliases.items() if of == name)})
    problems = [problem for group in groups for problem in _merged(group, cards)]
    if problems:
        raise ConfigError("mix", problems)
    numbers = tuple(np.zeros(len(card.classes), np.int32) for card in cards)
    for joint, group in enumerate(groups):
        for source, number in group.members:
            numbers[source][number] = joint
    first = [group.members[0] for group in groups]
    return JointClasses(tuple(cards[source].classes[number] for source, number in first), numbers)


def _add(groups: list[_Group], member: Member, names: set[str]) -> None:
    """Put a class with the first of the groups it shares a name with, and the others with them."""
    meeting = [group for group in groups if group.names & names] or [_Group(set())]
    first, *others = meeting
    if not first.members:
        groups.append(first)
    for group in others:
        first.members += group.members
        first.names |= group.names
        groups.remove(group)
    first.members.append(member)
    first.names |= names


def _merged(group: _Group, cards: Sequence[Card]) -> list[str]:
    """What is wrong with a group: each card of which it holds several classes."""
    names = ", ".join(sorted(group.names))
    own = [(card, [number for source, number in group.members if source == own]) for own, card in enumerate(cards)]
    return [
        f"the classes {' and '.join(card.classes[number] for number in numbers)} of {card.name} would become one, "
        f"joined by the names {names}; leave an alias out of a copy of a card"
        for card, numbers in own
        if len(numbers) > 1
    ]


def joint_card(cards: Sequence[Card], classes: JointClasses) -> Card:
    """What networks and evaluations ask of a card, for several: where files lie stays that of the first.

    Anchors are those that all cards agree on, detections an image the most that a card allows.
    """
    first, *others = cards
    agreed = [key for key, sizes in first.anchors.items() if all(card.anchors.get(key) == sizes for card in others)]
    return first.model_copy(
        update={
            "name": "+".join(card.name for card in cards),
            "title": " + ".join(card.title or card.name for card in cards),
            "classes": classes.names,
            "aliases": {},
            "anchors": {key: first.anchors[key] for key in agreed},
            "max_detections": max(card.max_detections for card in cards),
        }
    )
