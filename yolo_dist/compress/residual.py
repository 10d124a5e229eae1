"""Residual blocks on the channel graph: a shortcut and all that lies on its branch."""

from collections.abc import Iterable
from dataclasses import dataclass

from yolo_dist.compress.graph import ChannelGraph
from yolo_dist.darknet.cfg import Shortcut, sources


@dataclass(frozen=True)
class ResidualBlock:
    """Layers that can go together: without them, what the shortcut would have added to is handed on as it is.

    Attributes:
        shortcut: the layer that adds.
        identity: the layer whose output the branch is added to.
        feeding: the convolution whose output is added.
        branch: the layers between them, ascending; `feeding` is the last.
    """

    shortcut: int
    identity: int
    feeding: int
    branch: tuple[int, ...]

    @property
    def layers(self) -> tuple[int, ...]:
        """Everything that goes with the block, ascending."""
        return (*self.branch, self.shortcut)


def residual_blocks(graph: ChannelGraph) -> list[ResidualBlock]:
    """The blocks whose branch nobody else reads, by their shortcuts' places.

    A shortcut of three layers, one with an activation (its input is not its output without the branch) and one whose
    branch does not start from what it is added to are none.
    """
    blocks = (_block(graph, index) for index, layer in enumerate(graph.cfg.layers) if isinstance(layer, Shortcut))
    return [block for block in blocks if block is not None]


def _block(graph: ChannelGraph, index: int) -> ResidualBlock | None:
    layer = graph.cfg.layers[index]
    read = sources(layer, index)
    if not isinstance(layer, Shortcut) or layer.activation != "linear" or len(read) != 2:
        return None
    for feeding, identity in (read, reversed(read)):
        branch = _between(graph, identity, feeding)
        if branch and feeding in set(graph.convolutions()) and _read_only_within(graph, {*branch, index}, branch):
            return ResidualBlock(index, identity, feeding, branch)
    return None


def _between(graph: ChannelGraph, start: int, end: int) -> tuple[int, ...]:
    """All layers that `end` depends on up to `start`, ascending, itself included; none if some do not start there."""
    found: set[int] = set()
    ahead = [end]
    while ahead:
        index = ahead.pop()
        if index == start or index in found:
            continue
        if index < start or not sources(graph.cfg.layers[index], index):
            return ()
        found.add(index)
        ahead += sources(graph.cfg.layers[index], index)
    return tuple(sorted(found))


def _read_only_within(graph: ChannelGraph, block: set[int], branch: Iterable[int]) -> bool:
    return all(set(graph.consumers[layer]) <= block for layer in branch)
