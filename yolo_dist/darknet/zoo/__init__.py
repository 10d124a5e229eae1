"""The backbones we know by name: one cfg each, made for the asked classes and anchors at build time."""

from collections.abc import Sequence
from dataclasses import replace
from difflib import get_close_matches
from importlib.resources import files

from yolo_dist.config import validate
from yolo_dist.darknet.adapt import with_heads, with_width
from yolo_dist.darknet.cfg import Cfg, Net, parse_cfg
from yolo_dist.errors import ConfigError

ZOO: tuple[str, ...] = (
    "yolov3",
    "yolov3-spp",
    "yolov3-tiny",
    "yolov3-tiny-3l",
    "yolov3-mobilenet",
    "yolov3tiny-mobilenet-small",
    "yolov4",
    "yolov4-tiny",
)


def zoo_cfg(
    name: str,
    *,
    classes: int = 80,
    anchors: Sequence[tuple[float, float]] | None = None,
    image_size: tuple[int, int] = (416, 416),
    width: float = 1.0,
    channels: int = 3,
) -> Cfg:
    """The cfg of a backbone.

    Args:
        name: one of `ZOO`.
        classes: number of classes.
        anchors: (width, height) in pixels of all heads' anchors together, sorted by area; by default COCO's.
        image_size: (width, height) of the input in pixels.
        width: times the filters of the original; 0.5 has about a quarter of the parameters.
        channels: of the image.

    Raises:
        ConfigError: the name is unknown, or the number of anchors is not the one the backbone has, or a
            number is out of its range.
    """
    if name not in ZOO:
        known = get_close_matches(name, ZOO) or ZOO
        raise ConfigError("model", [f"{name} is not in the zoo; did you mean {', '.join(known)}?"])
    text = files(__name__).joinpath(f"{name}.cfg").read_text(encoding="utf-8")
    cfg = with_width(with_heads(parse_cfg(text, name), classes, anchors), width)
    size = {"width": image_size[0], "height": image_size[1]}
    return replace(cfg, net=validate(Net, {**size, "channels": channels}, name))
