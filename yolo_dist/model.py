"""The network a recipe starts from: one of the zoo, a Darknet cfg (and weights), or a bundle."""

import difflib
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from yolo_dist.bundle import (
    CFG_FILE,
    QUANTIZATION_FILE,
    Bundle,
    numbered_classes,
    open_bundle,
    open_darknet,
    read_record,
    require_classes,
)
from yolo_dist.config import Config
from yolo_dist.console import say
from yolo_dist.darknet.cfg import Cfg, Yolo, read_cfg
from yolo_dist.darknet.channels import COLOUR
from yolo_dist.darknet.network import Network, initialize
from yolo_dist.darknet.zoo import ZOO, zoo_cfg
from yolo_dist.data.anchors import kmeans_anchors, training_sizes
from yolo_dist.data.card import Card
from yolo_dist.data.mixture import Images
from yolo_dist.errors import InputError
from yolo_dist.storage import location, sha256
from yolo_dist.warm_start import is_bundle, warm_start


class ModelSource(Config):
    """The network a recipe starts from: one of the zoo, a Darknet cfg (and weights), or a bundle."""

    zoo: str | None = None
    """A backbone; its heads are made for the dataset's classes and anchors."""
    width: Annotated[float, Field(gt=0, le=4)] = 1.0
    """Channels of every zoo layer times this."""
    channels: Literal[1, 3] | None = None
    """Of the images that a zoo network sees: 1 is their brightness; 3, colour, by default."""
    cfg: str | None = None
    """Path or URL of a Darknet cfg."""
    weights: str | None = None
    """Path or URL of its weights; without them training starts from scratch."""
    bundle: str | None = None
    """Path or URL of a bundle."""
    warm_start: str | None = None
    """Path or URL of a bundle or a Darknet weights file, of which a network of the zoo or a cfg takes what fits."""

    @model_validator(mode="before")
    @classmethod
    def _from_text(cls, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        if value in ZOO:
            return {"zoo": value}
        if value.endswith(".cfg"):
            return {"cfg": value}
        if "/" in value or Path(value).is_dir():
            return {"bundle": value}
        close = difflib.get_close_matches(value, ZOO, n=1)
        hint = f"; did you mean {close[0]}?" if close else ""
        raise ValueError(f"{value} is neither a .cfg, nor a bundle's folder, nor in the zoo ({', '.join(ZOO)}){hint}")

    @field_validator("zoo")
    @classmethod
    def _in_zoo(cls, name: str | None) -> str | None:
        if name is not None and name not in ZOO:
            raise ValueError(f"not in the zoo, which has {', '.join(ZOO)}")
        return name

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if sum(source is not None for source in (self.zoo, self.cfg, self.bundle)) != 1:
            raise ValueError("give exactly one of zoo, cfg (with weights), bundle")
        if self.weights is not None and self.cfg is None:
            raise ValueError("weights need the cfg they belong to")
        if self.channels is not None and self.zoo is None:
            raise ValueError("channels is for networks of the zoo only; a cfg or bundle has its own in [net]")
        if self.warm_start is not None and (self.bundle is not None or self.weights is not None):
            raise ValueError("warm_start is for a network of the zoo or a cfg without weights; leave one out")
        if self.width != 1 and self.zoo is None:
            raise ValueError("width scales networks of the zoo only; a cfg or bundle has the width it has")
        return self

    def is_quantized(self) -> bool | None:
        """Whether it is a quantised network; None for a bundle that cannot be read."""
        if self.bundle is None:
            return False
        try:
            return QUANTIZATION_FILE in read_record(self.bundle)[0].sha256
        except InputError:
            return None

    def fingerprints(self) -> dict[str, str]:
        """Hashes of the files it names."""
        if self.bundle is not None:
            return {"bundle": read_record(self.bundle)[1]}
        files = {"cfg": self.cfg, "weights": self.weights, "warm_start": self.warm_start}
        return {name: _fingerprint(path) for name, path in files.items() if path is not None}


def _fingerprint(path: str) -> str:
    return read_record(path)[1] if is_bundle(path) else sha256(location(path))


def check_model(source: ModelSource, card: Card | None, image_size: tuple[int, int]) -> None:
    """Load the files that a source names; refuse those that are missing, damaged or made for other classes.

    Args:
        source: where the network comes from.
        card: whose classes it must have; None if that is not known.
        image_size: (width, height) of the input in pixels.

    Raises:
        ModelError, ConfigError: what is wrong with it.
    """
    if source.bundle is not None:
        bundle = open_bundle(source.bundle)
        if card is not None:
            require_classes(bundle, card.classes, f"dataset {card.name}")
    if source.cfg is not None:
        classes = card.classes if card else numbered_classes(source.cfg)
        bundle = open_darknet(source.cfg, source.weights, classes, image_size)
        if source.warm_start is not None:
            warm_start(bundle, source.warm_start)
    if source.zoo is not None and source.warm_start is not None and card is not None:
        cfg = _zoo_cfg(source, card, None, image_size)
        warm_start(Bundle(Network(cfg), card.classes, image_size), source.warm_start)


def read_structure(source: ModelSource) -> Cfg:
    """The layers of the network that a source names; heads of one of the zoo are not those for a dataset yet.

    Raises:
        ModelError: it cannot be read.
    """
    if source.zoo is not None:
        return zoo_cfg(source.zoo, width=source.width)
    return read_cfg(source.cfg if source.cfg is not None else str(location(source.bundle or "") / CFG_FILE))


def build_model(source: ModelSource, card: Card, train: Images, image_size: tuple[int, int], seed: int) -> Bundle:
    """The network, its weights loaded or initialised.

    Args:
        source: where it comes from.
        card: classes and published anchors for a network of the zoo.
        train: split from which anchors are computed where the card has none.
        image_size: (width, height) of the input in pixels.
        seed: of initial weights and computed anchors.
    """
    if source.bundle is not None:
        return open_bundle(source.bundle)
    if source.cfg is not None:
        bundle = open_darknet(source.cfg, source.weights, card.classes, image_size)
        if source.weights is None:
            _initialize(bundle, source, seed)
        return bundle
    assert source.zoo is not None
    anchors = _anchors(source.zoo, card, train, image_size, seed)
    cfg = _zoo_cfg(source, card, anchors, image_size)
    bundle = Bundle(Network(cfg), card.classes, image_size)
    _initialize(bundle, source, seed)
    return bundle


def _zoo_cfg(
    source: ModelSource, card: Card, anchors: list[tuple[float, float]] | None, image_size: tuple[int, int]
) -> Cfg:
    assert source.zoo is not None
    return zoo_cfg(
        source.zoo,
        classes=len(card.classes),
        anchors=anchors,
        image_size=image_size,
        width=source.width,
        channels=source.channels or COLOUR,
    )


def _initialize(bundle: Bundle, source: ModelSource, seed: int) -> None:
    initialize(bundle.network, seed)
    if source.warm_start is not None:
        say(f"warm start from {source.warm_start}: {warm_start(bundle, source.warm_start)}")


def _anchors(zoo: str, card: Card, train: Images, image_size: tuple[int, int], seed: int) -> list[tuple[float, float]]:
    """The card's published anchors for this network, or ones computed from the training boxes."""
    count = next(layer.num for layer in zoo_cfg(zoo).layers if isinstance(layer, Yolo))
    for key in (zoo, count):
        if key in card.anchors:
            return list(card.anchors[key])
    found = kmeans_anchors(training_sizes(train, image_size), count, seed)
    return [(round(float(width), 1), round(float(height), 1)) for width, height in found.sizes]
