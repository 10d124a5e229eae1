"""Options that several commands share, under one name everywhere."""

from typing import TYPE_CHECKING, Annotated

import typer
from pydantic import TypeAdapter

from yolo_dist.config import ImageSize
from yolo_dist.errors import ConfigError

if TYPE_CHECKING:
    from yolo_dist.bundle import Bundle

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
Split = Annotated[str, typer.Option("--split", help="Split of the dataset.")]
Size = Annotated[
    str | None,
    typer.Option(
        "--image-size", help="Input in pixels, 416 or 320x256; the model's own by default.", show_default=False
    ),
]
Overrides = Annotated[
    list[str] | None, typer.Argument(help="key=value or stage.key=value, in place of what the recipe says.")
]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]


def load_model(
    model: str | None,
    cfg: str | None,
    weights: str | None,
    dataset: str | None,
    classes: tuple[str, ...] | None = None,
) -> "Bundle":
    """The bundle that the options name.

    Args:
        model, cfg, weights, dataset: the options.
        classes: names for a bare cfg without --dataset; numbers if there are none either.

    Raises:
        ConfigError: neither or both of --model and --cfg with --weights are given.
    """
    from yolo_dist.bundle import open_bundle, open_darknet

    if (model is None) == (cfg is None) or (cfg is None) != (weights is None):
        raise ConfigError("options", ["give either --model BUNDLE, or --cfg FILE --weights FILE"])
    if model is not None:
        return open_bundle(model)
    assert cfg is not None
    return open_darknet(cfg, weights, _class_names(cfg, dataset) if dataset or classes is None else classes)


def image_size(text: str | None, default: tuple[int, int]) -> tuple[int, int]:
    """What --image-size says.

    Raises:
        ConfigError: it is no size, or no multiple of 32.
    """
    if text is None:
        return default
    sides = text.lower().split("x")
    try:
        return IMAGE_SIZE.validate_python(sides if len(sides) == 2 else int(text))
    except ValueError:
        raise ConfigError("--image-size", [f"{text} is no size: 416 or 320x256, multiples of 32"]) from None


def _class_names(cfg: str, dataset: str | None) -> tuple[str, ...]:
    """Class names of a bare cfg: the card's, or numbers."""
    from yolo_dist.darknet.cfg import Yolo, read_cfg
    from yolo_dist.data.card import find_card

    if dataset is not None:
        return find_card(dataset).classes
    heads = [layer for layer in read_cfg(cfg).layers if isinstance(layer, Yolo)]
    return tuple(str(number) for number in range(heads[0].classes if heads else 0))
