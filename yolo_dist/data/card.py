"""Dataset cards: what a dataset is called, where its files lie, which classes it has."""

import difflib
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator
from upath import UPath

from yolo_dist.config import Config, read_yaml, validate
from yolo_dist.data.scenes import SceneSettings
from yolo_dist.errors import ConfigError
from yolo_dist.shipped import shipped_folder

Size = tuple[float, float]


def _pairs(value: Any) -> Any:
    return [pair.split(",") for pair in value.split()] if isinstance(value, str) else value


Anchors = Annotated[tuple[Size, ...], BeforeValidator(_pairs)]
"""(width, height) of each anchor in pixels; in a file also as a cfg writes them: "10,13 16,30"."""


class SplitSource(Config):
    """Where a split's files lie, relative to the root of the download."""

    images: str = "."
    """Folder of the images."""
    annotations: str = "."
    """Annotation file, or the folder of one file an image."""
    alternatives: tuple[str, ...] = ()
    """Other editions of `annotations`, the first of which that is there stands in where it is not."""
    list: str | None = None
    """Text file naming the split's images, one a line; without it every image of the folder belongs to the split."""
    generate: SceneSettings | None = None
    """For format `shapes`: how its images are made."""

    def at(self, root: UPath) -> "SplitSource":
        """The split with that edition of its annotations that is at a dataset's root."""
        if not self.alternatives or (root / self.annotations).exists():
            return self
        there = next((name for name in self.alternatives if (root / name).exists()), self.annotations)
        return self.model_copy(update={"annotations": there})


class Card(Config):
    """One dataset, as a file of `datasets/` describes it."""

    name: str = Field(pattern=r"^[\w.-]+$")
    """Short name, as commands and recipes use it."""
    title: str = ""
    """Full name."""
    format: str
    """Annotation format: a module of `yolo_dist.data.formats`."""
    classes: tuple[str, ...] = Field(min_length=1)
    """Class names in the order of the model's outputs."""
    aliases: dict[str, str] = Field(default_factory=dict)
    """Other names that annotations use for a class."""
    splits: dict[str, SplitSource] = Field(min_length=1)
    """Where each split lies in the download."""
    anchors: dict[int | Literal["yolov4"], Anchors] = Field(default_factory=dict)
    """Published anchors at 416 px by their number (9, 6) or network; empty: computed from the shards."""
    max_detections: int = Field(default=100, gt=0)
    """Detections an image that evaluation looks at."""
    licence: str = ""
    """Under which terms the data may be used."""
    url: str = ""
    """Where to get it."""
    citation: str = ""
    """What to cite."""

    @model_validator(mode="after")
    def _consistent(self) -> "Card":
        problems = [
            *(f"class {name!r} is listed twice" for name in _repeated(self.classes)),
            *(
                f"alias {alias!r} stands for {name!r}, which is not a class"
                for alias, name in self.aliases.items()
                if name not in self.classes
            ),
            *(
                f"anchors {key} lists {len(anchors)} of them"
                for key, anchors in self.anchors.items()
                if isinstance(key, int) and len(anchors) != key
            ),
            *(
                f"splits share seed {seed} and would hold the same images"
                for seed in _repeated(split.generate.seed for split in self.splits.values() if split.generate)
            ),
        ]
        if problems:
            raise ValueError("; ".join(problems))
        return self

    def class_numbers(self) -> dict[str, int]:
        """Class number by name, aliases included."""
        numbers = {name: number for number, name in enumerate(self.classes)}
        return numbers | {alias: numbers[name] for alias, name in self.aliases.items()}

    def split(self, name: str) -> SplitSource:
        """Where a split lies.

        Raises:
            ConfigError: the card has no such split.
        """
        if name not in self.splits:
            raise ConfigError(f"dataset {self.name}", [f"no split {name!r}; choose from {', '.join(self.splits)}"])
        return self.splits[name]


def _repeated(values: Any) -> list[Any]:
    seen = list(values)
    return sorted({value for value in seen if seen.count(value) > 1})


def card_folder() -> Path:
    """The folder of the cards that come with the package."""
    return shipped_folder("datasets")


def card_names() -> list[str]:
    """Names of the cards that come with the package, sorted."""
    return sorted(path.stem for path in card_folder().glob("*.yaml"))


def find_card(name_or_path: str) -> Card:
    """The card in a YAML file, or the one of that name that comes with the package.

    Raises:
        ConfigError: there is none, or it has mistakes; all of them are listed.
    """
    path = Path(name_or_path).expanduser()
    if path.suffix in (".yaml", ".yml") or path.is_file():
        return read_card(path)
    if name_or_path in card_names():
        return read_card(card_folder() / f"{name_or_path}.yaml")
    close = difflib.get_close_matches(name_or_path, card_names()) or card_names()
    raise ConfigError(
        f"dataset {name_or_path}", [f"there is no such card; did you mean {' or '.join(close)}? A path ends in .yaml"]
    )


def read_card(path: Path) -> Card:
    """The card in a YAML file.

    Raises:
        ConfigError: it cannot be read, or lists every mistake in it.
    """
    return validate(Card, read_yaml(path), str(path))
