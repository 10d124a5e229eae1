"""Surgery on layers: a network without some residual blocks, every route and shortcut counted anew."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from yolo_dist.compress.residual import ResidualBlock
from yolo_dist.darknet.cfg import Cfg, Layer, Route, Shortcut, sources
from yolo_dist.darknet.network import Network

Lineage = tuple[int | None, ...]
"""Layer → the layer it was before; None for one that is new."""


@dataclass(frozen=True)
class Shortened:
    """A cfg that lost layers, and which layer each of the others was."""

    cfg: Cfg
    lineage: Lineage


@torch.no_grad()
def remove_blocks(network: Network, blocks: Sequence[ResidualBlock]) -> tuple[Network, Lineage]:
    """The network without some residual blocks, with the weights of all others, and its lineage; itself if none go."""
    if not blocks:
        return network, tuple(range(len(network.layers)))
    shortened = cfg_without(network.cfg, blocks)
    compact = Network(shortened.cfg)
    for layer, origin in zip(compact.layers, shortened.lineage, strict=True):
        if origin is not None:
            layer.load_state_dict(network.layers[origin].state_dict())
    return compact.train(network.training), shortened.lineage


def cfg_without(cfg: Cfg, blocks: Sequence[ResidualBlock]) -> Shortened:
    """The cfg without some residual blocks: whoever read a block's sum reads what the branch was added to.

    References stay relative or absolute as they were. A layer that reads the one before it, and would read another
    now, gets a route in front of it.
    """
    gone = {layer for block in blocks for layer in block.layers}
    replaced = {block.shortcut: block.identity for block in blocks}
    layers: list[Layer] = []
    lineage: list[int | None] = []
    place: dict[int, int] = {}

    def now(origin: int) -> int:
        while origin in replaced:
            origin = replaced[origin]
        return place[origin]

    for index, layer in enumerate(cfg.layers):
        if index in gone:
            continue
        read = [now(origin) for origin in sources(layer, index)]
        if read and not isinstance(layer, Route) and read[0] != len(layers) - 1:
            layers.append(Route(layers=(read[0] - len(layers),)))
            lineage.append(None)
        place[index] = len(layers)
        layers.append(_rewired(layer, read, len(layers)))
        lineage.append(index)
    return Shortened(cfg.with_layers(layers), tuple(lineage))


def _rewired(layer: Layer, read: Sequence[int], index: int) -> Layer:
    if isinstance(layer, Route):
        return layer.model_copy(update={"layers": _references(layer.layers, read, index)})
    if isinstance(layer, Shortcut):
        return layer.model_copy(update={"from_layer": _references(layer.from_layer, read[1:], index)})
    return layer


def _references(before: Sequence[int], read: Sequence[int], index: int) -> tuple[int, ...]:
    return tuple(origin - index if old < 0 else origin for old, origin in zip(before, read, strict=True))
