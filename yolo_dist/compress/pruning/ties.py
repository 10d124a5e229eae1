"""What becomes of channels that several convolutions create, and rounding of their number."""

import math

import numpy as np
from numpy.typing import NDArray

from yolo_dist.compress.graph import ChannelGraph
from yolo_dist.compress.importance import Importance
from yolo_dist.compress.pruning.plan import Masks

Kept = NDArray[np.bool_]
Values = NDArray[np.float32]

FEWEST = 8
"""Channels of a rounded layer of which the threshold leaves none."""


def first_decides(graph: ChannelGraph, masks: Masks) -> Kept:
    """Channels stay as the first convolution that creates them says, bool [channels]; all of one that has no mask."""
    kept = np.ones(len(graph.frozen), bool)
    for layer in reversed(graph.creators()):
        kept[graph.outputs[layer]] = masks.get(layer, True)
    return kept


def any_keeps(graph: ChannelGraph, masks: Masks) -> Kept:
    """Channels stay if one convolution that creates them says so, bool [channels]; all of one that has no mask."""
    kept = np.zeros(len(graph.frozen), bool)
    for layer in graph.creators():
        kept[graph.outputs[layer]] |= masks.get(layer, True)
    return kept | graph.frozen


def value_of_first(graph: ChannelGraph, importance: Importance) -> Values:
    """Importance of each channel of the graph in the first convolution that creates it, float32 [channels]."""
    values = np.zeros(len(graph.frozen), np.float32)
    for layer in sorted(importance, reverse=True):
        values[graph.outputs[layer]] = importance[layer]
    return values


def value_of_best(graph: ChannelGraph, importance: Importance) -> Values:
    """Importance of each channel of the graph in the convolution that needs it most, float32 [channels]."""
    values = np.zeros(len(graph.frozen), np.float32)
    for layer in importance:
        np.maximum.at(values, graph.outputs[layer], importance[layer])
    return values


def staying(channels: int, cut: float, multiple: int) -> int:
    """Channels that stay of so many after a share is cut, up to a multiple, at least one."""
    kept = max(1, round(channels * (1 - min(cut, 1.0))))
    return min(channels, math.ceil(kept / multiple) * multiple)


def round_up(graph: ChannelGraph, kept: Kept, values: Values, multiple: int, fewest: int = FEWEST) -> Kept:
    """Give every set of channels that lost some the best of them back, up to a multiple or to all that it had.

    Args:
        graph: the channel graph.
        kept: which of its channels stay, bool [channels].
        values: importance of each of them, float32 [channels]; equal ones by number.
        multiple: of which the number of channels shall be.
        fewest: what a set keeps of which nothing stayed.
    """
    kept = kept.copy()
    for one in graph.channel_sets():
        count = int(kept[one.channels].sum())
        if count == len(one.channels):
            continue
        wanted = math.ceil(count / multiple) * multiple if count else fewest
        best = np.lexsort((-values[one.channels], ~kept[one.channels]))  # stable: equal ones stay in order
        kept[one.channels[best[:wanted]]] = True
    return kept
