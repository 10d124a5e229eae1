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
    shortcuts = (index for index, layer in enumerate(graph.cfg.layers) if isinstance(layer, Shortcut))
    blocks = (block_of(graph, index) for index in shortcuts)
    return [block for block in blocks if isinstance(block, ResidualBlock)]


def block_of(graph: ChannelGraph, shortcut: int) -> ResidualBlock | str:
    """The block that a shortcut closes, or in words why it closes none that could go."""
    layer = graph.cfg.layers[shortcut]
    read = sources(layer, shortcut)
    if not isinstance(layer, Shortcut):
        return "it is no shortcut"
    if len(read) != 2:
        return f"it adds {len(read)} layers"
    if layer.activation != "linear":
        return f"it has an activation, {layer.activation}"
    for feeding, identity in (read, reversed(read)):
        branch = _between(graph, identity, feeding)
        if not branch:
            continue
        if feeding not in set(graph.convolutions()):
            return f"{graph.cfg.name_of(feeding)}, which it adds, is no convolution with batch normalisation"
        outside = _readers_outside(graph, branch, {*branch, shortcut})
        if outside:
            return f"{graph.cfg.name_of(outside[0])} reads from inside its branch"
        return ResidualBlock(shortcut, identity, feeding, branch)
    return f"neither of layers {read[0]} and {read[1]} is a branch that starts from the other"


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


def _readers_outside(graph: ChannelGraph, branch: Iterable[int], block: set[int]) -> list[int]:
    return sorted({reader for layer in branch for reader in graph.consumers[layer]} - block)
