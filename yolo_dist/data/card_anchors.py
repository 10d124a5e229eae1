"""Anchors written into a card: one value of the file changes, its comments and its order stay."""

from pathlib import Path
from typing import Any

import yaml

from yolo_dist.config import validate
from yolo_dist.data.anchors import Anchors
from yolo_dist.data.card import Card, read_card
from yolo_dist.errors import ConfigError
from yolo_dist.storage import location, publish


def write_anchors(path: Path, anchors: Anchors, classes: tuple[str, ...]) -> None:
    """Put anchors into a card, in the place of as many that it may have.

    Args:
        path: the card's YAML file.
        anchors: computed for the network's input size; the card holds them as they are.
        classes: of the boxes they were computed from.

    Raises:
        ConfigError: the card cannot be read, has other classes, or is written in a way that this function cannot
            edit; the file is as it was.
    """
    card = read_card(path)
    if card.classes != classes:
        raise ConfigError(str(path), ["its classes are not those of the shards; anchors belong to one dataset"])
    text = path.read_text(encoding="utf-8")
    edited = _edited(text, len(anchors.sizes), anchors.card_text())
    if not _is_as_wanted(edited, card, anchors):
        raise ConfigError(str(path), [f"cannot be edited; write below anchors: {anchors.card_line()}"])
    publish(location(path), edited)


def _edited(text: str, count: int, value: str) -> str:
    """The card's text with the entry set; positions come from the YAML parser."""
    entry = f'{count}: "{value}"'
    listed = _value(yaml.compose(text, yaml.SafeLoader), "anchors")
    if listed is None:
        return f"{text.rstrip()}\nanchors:\n  {entry}\n"
    if not listed.value:
        return f"{text[: listed.start_mark.index]}{{{entry}}}{text[listed.end_mark.index :]}"
    known = _value(listed, str(count))
    if known is not None:
        return f'{text[: known.start_mark.index]}"{value}"{text[known.end_mark.index :]}'
    first = listed.value[0][0].start_mark
    separator = ", " if listed.flow_style else f"\n{' ' * first.column}"
    return f"{text[: first.index]}{entry}{separator}{text[first.index :]}"


def _value(mapping: Any, key: str) -> Any:
    """The node that a mapping node has under a key."""
    return next((value for name, value in mapping.value if name.value == key), None)


def _is_as_wanted(text: str, card: Card, anchors: Anchors) -> bool:
    """Whether a card's text says what the card said, and the anchors."""
    wanted = card.model_dump()
    wanted["anchors"] = card.anchors | {len(anchors.sizes): anchors.card_text()}
    try:
        return validate(Card, yaml.safe_load(text), "card") == Card.model_validate(wanted)
    except (yaml.YAMLError, ConfigError):
        return False
