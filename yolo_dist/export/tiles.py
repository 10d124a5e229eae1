"""The order in which an accelerator that computes TM output channels from TN input channels at once reads weights."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Tile = tuple[int, int]
"""TM output and TN input channels."""


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
