"""Options that several commands share, under one name everywhere."""

from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

import typer
from pydantic import TypeAdapter

from yolo_dist.config import ImageSize
from yolo_dist.data.card import card_names, find_card
from yolo_dist.errors import ConfigError

if TYPE_CHECKING:
    from yolo_dist.bundle import Bundle

COCO_DETECTIONS = 100
"""Detections an image that count for a dataset without a card."""
IMAGE_SIZE = TypeAdapter[tuple[int, int]](ImageSize)

Model = Annotated[str | None, typer.Option("--model", help="Folder or URL of a bundle.", show_default=False)]
CfgFile = Annotated[
    str | None, typer.Option("--cfg", help="Darknet cfg, in place of --model; goes with --weights.", show_default=False)
]
Weights = Annotated[str | None, typer.Option("--weights", help="Darknet weights of --cfg.", show_default=False)]
Dataset = Annotated[
    str | None, typer.Option("--dataset", help="Card with the class names: a name or a YAML file.", show_default=False)
]
Shards = Annotated[str, typer.Option("--shards", help="Path or URL the dataset was converted to.")]
OptionalShards = Annotated[
    str | None, typer.Option("--shards", help="Path or URL the dataset was converted to.", show_default=False)
]
Split = Annotated[str, typer.Option("--split", help="Split of the dataset.")]
ValidationSplit = Annotated[str, typer.Option("--split", help="Validation split, to measure on.")]
TrainSplit = Annotated[str, typer.Option("--train-split", help="Split of the training images.")]
Size = Annotated[
    str | None,
    typer.Option(
        "--image-size", help="Input in pixels, 416 or 320x256; the model's own by default.", show_default=False
    ),
]
Overrides = Annotated[
    list[str] | None, typer.Argument(help="key=value or stage.key=value, in place of what the recipe says.")
]
Workers = Annotated[
    int,
    typer.Option("--workers", min=0, help="Ray tasks at a time, on RAY_ADDRESS or this machine; 0 does without Ray."),
]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]


def load_model(
    model: str | None,
    cfg: str | None,
    weights: str | None,
    dataset: str | None,
    classes: tuple[str, ...] | None = None,
    size: str | None = None,
) -> "Bundle":
    """The bundle that the options name, with the input size they ask for.

    Args:
        model, cfg, weights, dataset: the options.
        classes: names for a bare cfg without --dataset; numbers if there are none either.
        size: --image-size; the model's own if it is not given.

    Raises:
        ConfigError: neither or both of --model and --cfg with --weights are given, the size is none, or the card of
            --dataset has other classes than the bundle.
    """
    from yolo_dist.bundle import numbered_classes, open_bundle, open_darknet, require_classes

    if (model is None) == (cfg is None) or (cfg is None) != (weights is None):
        raise ConfigError("options", ["give either --model BUNDLE, or --cfg FILE --weights FILE"])
    asked = None if size is None else image_size(size)
    if model is not None:
        bundle = open_bundle(model)
        if dataset is not None:
            require_classes(bundle, find_card(dataset).classes, f"--dataset {dataset}")
        return replace(bundle, image_size=asked or bundle.image_size)
    assert cfg is not None
    if dataset is not None:
        classes = find_card(dataset).classes
    return open_darknet(cfg, weights, classes or numbered_classes(cfg), asked)


def image_size(text: str) -> tuple[int, int]:
    """What --image-size says: (width, height).

    Raises:
        ConfigError: it is no size, or no multiple of 32.
    """
    sides = text.lower().split("x")
    try:
        return IMAGE_SIZE.validate_python(sides if len(sides) == 2 else int(text))
    except ValueError:
        raise ConfigError("--image-size", [f"{text} is no size: 416 or 320x256, multiples of 32"]) from None


def detections_that_count(dataset: str | None, converted_as: str) -> int:
    """A card's number; the COCO protocol's for a dataset whose card is not at hand."""
    if dataset is None and converted_as not in card_names():
        return COCO_DETECTIONS
    return find_card(dataset or converted_as).max_detections
