"""A cfg for other classes, anchors or a smaller machine."""

from collections.abc import Sequence

from yolo_dist.config import validate
from yolo_dist.darknet.cfg import Cfg, Convolutional, Depthwise, Layer, SqueezeExcite, Yolo
from yolo_dist.errors import ConfigError

CHANNEL_MULTIPLE = 8
"""Widths that processors handle without remainders."""


def with_heads(cfg: Cfg, classes: int, anchors: Sequence[tuple[float, float]] | None = None) -> Cfg:
    """`cfg` for a number of classes and, if given, other anchors: (width, height) in pixels, for all heads together.

    Raises:
        ConfigError: the number of anchors is not the one that a yolo layer has, or a number is not positive.
        CfgError: a yolo layer does not follow a convolution.
    """
    layers: list[Layer] = list(cfg.layers)
    for head, feeder in cfg.head_convolutions.items():
        yolo, convolution = layers[head], layers[feeder]
        assert isinstance(yolo, Yolo)
        assert isinstance(convolution, Convolutional)
        if anchors is not None and len(anchors) != yolo.num:
            raise ConfigError("anchors", [f"{len(anchors)} given, but {cfg.place(head)} has num={yolo.num}"])
        changes = {"classes": classes, "anchors": yolo.anchors if anchors is None else anchors}
        yolo = validate(Yolo, yolo.model_dump(exclude_unset=True) | changes, cfg.place(head))
        layers[head] = yolo
        layers[feeder] = convolution.model_copy(update={"filters": yolo.channels})
    return cfg.with_layers(layers)


def with_width(cfg: Cfg, width: float) -> Cfg:
    """`cfg` with `width` times the filters in every layer but the heads, rounded to a multiple of 8, at least 8.

    Raises:
        ConfigError: `width` is not a positive number.
    """
    if not 0 < width < float("inf"):
        raise ConfigError("width", [f"{width:g} is not a positive number"])
    heads = set(cfg.head_convolutions.values())
    return cfg.with_layers(layer if index in heads else _scaled(layer, width) for index, layer in enumerate(cfg.layers))


def _scaled(layer: Layer, width: float) -> Layer:
    if not isinstance(layer, Convolutional | Depthwise | SqueezeExcite):
        return layer
    multiples = round(layer.filters * width / CHANNEL_MULTIPLE)
    return layer.model_copy(update={"filters": max(CHANNEL_MULTIPLE, multiples * CHANNEL_MULTIPLE)})
