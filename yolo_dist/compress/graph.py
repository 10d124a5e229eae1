"""The channel graph: which channels of which layers are the same channel, from the cfg alone.

A convolution creates channels. Shortcuts tie channels of several convolutions into one; depthwise and
squeeze-excite layers, pools, upsampling and dropout hand them on; a route with several layers concatenates them; a
grouped route slices them. Every rule about pruning is a question to this graph: no layer number and no pattern of
neighbouring layers appears anywhere else.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from yolo_dist.darknet.cfg import (
    Cfg,
    Convolutional,
    Depthwise,
    Layer,
    Maxpool,
    Route,
    Shortcut,
    Upsample,
    Yolo,
    sources,
)

Channels = NDArray[np.int64]
"""Channel numbers, one for each channel of a layer, int64 [C]; equal numbers are tied channels."""

Scope = Literal["classic", "full"]
"""`classic` leaves out what the original left out; `full` takes all that the graph allows."""

Reason = Literal["image", "head", "without batch normalisation", "grouped convolution", "grouped route"]
"""Why channels must stay: without batch normalisation a layer emits more than a constant for a channel that is cut, and
the slices of grouped convolutions and grouped routes are equal by definition."""


@dataclass(frozen=True)
class Hold:
    """Channels that must stay.

    Attributes:
        reason: why.
        layer: for whose sake; None for the image.
        channels: their numbers in the graph, int64 [n].
    """

    reason: Reason
    layer: int | None
    channels: Channels


@dataclass(frozen=True)
class ChannelSet:
    """Channels that the same convolutions create: each of them goes or stays in all of these at once.

    Attributes:
        convolutions: that create them, ascending; more than one where shortcuts tie them.
        channels: their numbers in the graph, int64 [C], in the order of the first convolution.
    """

    convolutions: tuple[int, ...]
    channels: Channels


@dataclass(frozen=True)
class ChannelGraph:
    """Channels that each layer reads and writes.

    Attributes:
        cfg: the network.
        inputs: channels each layer reads, concatenated over its sources.
        outputs: channels each layer writes.
        holds: what makes channels stay, in the order of the layers.
        frozen: channels that some hold makes stay, bool [channels].
        consumers: layers that read each layer.
    """

    cfg: Cfg
    inputs: tuple[Channels, ...]
    outputs: tuple[Channels, ...]
    holds: tuple[Hold, ...]
    frozen: NDArray[np.bool_]
    consumers: tuple[tuple[int, ...], ...]

    @classmethod
    def from_cfg(cls, cfg: Cfg) -> "ChannelGraph":
        """Build the graph; shapes are taken as checked (see `darknet.shapes`)."""
        return _Builder(cfg).graph()

    def creators(self) -> list[int]:
        """All layers that create channels, with batch normalisation or without, ascending."""
        return [
            index
            for index, layer in enumerate(self.cfg.layers)
            if isinstance(layer, Convolutional) and not self.is_depthwise(index)
        ]

    def convolutions(self) -> Iterator[int]:
        """Layers that create channels and normalise them: the ones a pruning method may choose from."""
        return (index for index in self.creators() if self.cfg.layers[index].batch_normalize)  # type: ignore[union-attr]

    def is_depthwise(self, index: int) -> bool:
        """Whether a layer filters each of its input channels on its own."""
        return passes_channels_through(self.cfg.layers[index], len(self.inputs[index]))

    def is_frozen(self, index: int) -> bool:
        """Whether no channel that a layer writes may go."""
        return bool(self.frozen[self.outputs[index]].all())

    def tied(self) -> frozenset[int]:
        """Convolutions that share a channel with another convolution."""
        return frozenset().union(*(one.convolutions for one in self.channel_sets() if len(one.convolutions) > 1))

    def channel_sets(self) -> list["ChannelSet"]:
        """All channels that convolutions create, those of the same convolutions together, by their first one."""
        created_by: dict[int, list[int]] = {}
        for index in self.creators():
            for channel in dict.fromkeys(self.outputs[index].tolist()):
                created_by.setdefault(channel, []).append(index)
        sets: dict[tuple[int, ...], list[int]] = {}
        for channel, layers in created_by.items():
            sets.setdefault(tuple(layers), []).append(channel)
        return [ChannelSet(layers, np.array(channels, np.int64)) for layers, channels in sorted(sets.items())]

    def classic_exclusions(self) -> frozenset[int]:
        """Convolutions that the classic scope leaves out; see `left_out_for`."""
        return frozenset(producer for producer in self.convolutions() if self.left_out_for(producer))

    def left_out_for(self, producer: int) -> tuple[int, ...]:
        """Layers for whose sake the classic scope leaves a convolution out; none if it does not.

        It feeds them directly: a depthwise convolution, an upsampling, a grouped route, or a pool of a spatial pyramid,
        whose channels a later concatenation lists more than once.
        """

        def excludes(consumer: int) -> bool:
            layer = self.cfg.layers[consumer]
            if isinstance(layer, Maxpool):
                return bool(self._repeated[self.outputs[producer]].any())
            return isinstance(layer, Upsample) or is_grouped_route(layer) or self.is_depthwise(consumer)

        return tuple(consumer for consumer in self.consumers[producer] if excludes(consumer))

    def kept_channels(self, keep: Mapping[int, NDArray[np.bool_]]) -> NDArray[np.bool_]:
        """Masks of single convolutions as one mask over all channels of the graph, bool [channels].

        A tied channel goes only if every convolution that creates it and is listed lets it go; frozen ones stay.
        """
        removable = np.zeros(len(self.frozen), bool)
        for index, mask in keep.items():
            removable[self.outputs[index][~mask]] = True
        for index, mask in keep.items():
            removable[self.outputs[index][mask]] = False
        return ~removable | self.frozen

    @cached_property
    def _repeated(self) -> NDArray[np.bool_]:
        """Channels that some concatenation lists more than once, bool [channels]."""
        repeated = np.zeros(len(self.frozen), bool)
        for layer, channels in zip(self.cfg.layers, self.outputs, strict=True):
            if isinstance(layer, Route):
                numbers, counts = np.unique(channels, return_counts=True)
                repeated[numbers[counts > 1]] = True
        return repeated


def plain_convolutions(graph: ChannelGraph, scope: Scope) -> list[int]:
    """Convolutions that no shortcut ties and whose channels may go; the classic scope leaves some out."""
    tied = graph.tied()
    return [layer for layer in prunable_convolutions(graph, scope) if layer not in tied]


def prunable_convolutions(graph: ChannelGraph, scope: Scope) -> list[int]:
    """Convolutions whose channels may go, tied ones included; the classic scope leaves some out."""
    left_out = graph.classic_exclusions() if scope == "classic" else frozenset()
    return [layer for layer in graph.convolutions() if layer not in left_out and not graph.is_frozen(layer)]


def passes_channels_through(layer: Layer, in_channels: int) -> bool:
    """Whether a layer is a depthwise convolution, under either of its two names in a cfg."""
    if isinstance(layer, Depthwise):
        return True
    return isinstance(layer, Convolutional) and 1 < layer.groups == in_channels == layer.filters


def is_grouped_route(layer: Layer) -> bool:
    """Whether a layer hands on a slice of its sources' channels."""
    return isinstance(layer, Route) and layer.groups > 1


class _Builder:
    """One pass over the layers, then ties resolved to one number for each set of tied channels."""

    def __init__(self, cfg: Cfg) -> None:
        self.cfg = cfg
        self.created = 0
        self.ties: list[tuple[Channels, Channels]] = []
        self.holds: list[Hold] = []
        self.inputs: list[Channels] = []
        self.outputs: list[Channels] = []

    def graph(self) -> ChannelGraph:
        image = self._create(self.cfg.net.channels)
        self.holds.append(Hold("image", None, image))
        consumers: list[list[int]] = [[] for _ in self.cfg.layers]
        for index, layer in enumerate(self.cfg.layers):
            origins = sources(layer, index)
            for origin in origins:
                consumers[origin].append(index)
            read = [self.outputs[origin] for origin in origins] or [image]
            self.inputs.append(read[0] if isinstance(layer, Shortcut) else np.concatenate(read))
            self.outputs.append(self._written(index, read))
        root = self._resolve()
        holds = tuple(replace(hold, channels=root[hold.channels]) for hold in self.holds)
        frozen = np.zeros(self.created, bool)
        for hold in holds:
            frozen[hold.channels] = True
        return ChannelGraph(
            self.cfg,
            tuple(root[channels] for channels in self.inputs),
            tuple(root[channels] for channels in self.outputs),
            holds,
            frozen,
            tuple(tuple(layers) for layers in consumers),
        )

    def _written(self, index: int, read: list[Channels]) -> Channels:
        layer, channels = self.cfg.layers[index], self.inputs[-1]
        if isinstance(layer, Shortcut):
            self.ties += [(read[0], other) for other in read[1:]]
        elif isinstance(layer, Yolo):
            self.holds.append(Hold("head", index, channels))
        elif isinstance(layer, Route) and layer.groups > 1:
            self.holds.append(Hold("grouped route", index, channels))
            return np.concatenate([np.split(source, layer.groups)[layer.group_id] for source in read])
        elif isinstance(layer, Convolutional) and not passes_channels_through(layer, len(channels)):
            return self._convolve(index, layer)
        return channels

    def _convolve(self, index: int, layer: Convolutional) -> Channels:
        created = self._create(layer.filters)
        if layer.groups > 1:
            self.holds.append(Hold("grouped convolution", index, np.concatenate((self.inputs[-1], created))))
        if not layer.batch_normalize:
            self.holds.append(Hold("without batch normalisation", index, created))
        return created

    def _create(self, count: int) -> Channels:
        self.created += count
        return np.arange(self.created - count, self.created)

    def _resolve(self) -> Channels:
        """The smallest number in each set of tied channels, int64 [channels]."""
        parent = np.arange(self.created)

        def find(channel: int) -> int:
            while parent[channel] != channel:
                parent[channel] = parent[parent[channel]]
                channel = int(parent[channel])
            return channel

        for left, right in self.ties:
            for a, b in zip(left.tolist(), right.tolist(), strict=True):
                low, high = sorted((find(a), find(b)))
                parent[high] = low
        return np.array([find(channel) for channel in range(self.created)], np.int64)
