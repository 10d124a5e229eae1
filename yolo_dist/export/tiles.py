"""The order in which an accelerator that computes TM output channels from TN input channels at once reads weights."""

import re
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from yolo_dist.errors import ConfigError

Tile = tuple[int, int]
"""TM output and TN input channels."""


def parse_tile(text: str) -> Tile:
    """The tile that a text such as 32x4 names.

    Raises:
        ConfigError: it names none.
    """
    if not (match := re.fullmatch(r"([1-9][0-9]*)x([1-9][0-9]*)", text)):
        raise ConfigError("tile", [f"{text} is none; give output and input channels as TMxTN, such as 32x4"])
    return int(match[1]), int(match[2])


def tile_order(shape: Sequence[int], tile: Tile) -> NDArray[np.int64]:
    """Which weight comes when: their places in an array of `shape`, int64 of as many.

    Tiles follow one another along the input channels, then along the output channels; within a tile the order is that
    of the array. Channels that fill no whole tile make a smaller one.

    Args:
        shape: [O, I, h, w].
        tile: output and input channels of a tile, at least 1.
    """
    places = np.arange(np.prod(shape), dtype=np.int64).reshape(shape)
    outputs, inputs = tile
    return np.concatenate(
        [
            places[first : first + outputs, second : second + inputs].ravel()
            for first in range(0, shape[0], outputs)
            for second in range(0, shape[1], inputs)
        ]
    )
