"""What pruning may take from a network, and in words why not the rest."""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from yolo_dist.compress.graph import ChannelGraph, ChannelSet, Scope, plain_convolutions, prunable_convolutions
from yolo_dist.compress.pruning.plan import Masks
from yolo_dist.compress.pruning.ties import any_keeps, first_decides
from yolo_dist.compress.residual import ResidualBlock, block_of
from yolo_dist.darknet.cfg import Layer, Maxpool, Shortcut, Yolo

Mask = NDArray[np.bool_]
"""One bool for each channel of a graph, bool [channels]."""

Candidates = Callable[[ChannelGraph, Scope], list[int]]
Agreement = Callable[[ChannelGraph, Masks], Mask]

RULES: Mapping[str, tuple[Candidates, Agreement]] = {
    "normal": (plain_convolutions, first_decides),
    "shortcut": (prunable_convolutions, first_decides),
    "slim": (prunable_convolutions, any_keeps),
}
"""Method → the convolutions it chooses from and how tied ones agree; every method that cuts channels does as one of
these."""

Fate = Literal["free", "tied", "left out", "held"]
"""Whether all rules may cut channels, only those that cut tied ones, none in this scope, or none at all."""


@dataclass(frozen=True)
class SetExplanation:
    """Channels that the same convolutions create, and what may become of them.

    Attributes:
        convolutions: that create them, ascending.
        width: how many they are.
        handed_on_by: layers that pass them to their own readers, such as shortcuts, routes and pools, ascending.
        read_by: convolutions and heads that read them, ascending.
        tied_by: shortcuts that make channels of these convolutions one with those of others, ascending.
        may_cut: rule → whether methods that follow it may cut some of them.
        fate: the same in a word.
        reasons: what keeps a rule from cutting them; none if every rule may.
        kept: how many a plan keeps; None without a plan.
    """

    convolutions: tuple[int, ...]
    width: int
    handed_on_by: tuple[int, ...]
    read_by: tuple[int, ...]
    tied_by: tuple[int, ...]
    may_cut: dict[str, bool]
    fate: Fate
    reasons: tuple[str, ...]
    kept: int | None

    @property
    def verdict(self) -> str:
        """Which methods may cut them, and why not the others."""
        if not self.reasons:
            return "yes"
        able, unable = (" and ".join(rule for rule, may in self.may_cut.items() if may is one) for one in (True, False))
        who = f"by {able}, not by {unable}" if able else "no"
        return f"{who}: {'; '.join(self.reasons)}"


@dataclass(frozen=True)
class ShortcutExplanation:
    """A shortcut, and whether a layer method may take it away together with its branch.

    Attributes:
        shortcut: the layer that adds.
        block: what would go; None if it closes no removable block.
        reason: why it closes none; empty if it does.
        removed: whether a plan removes it; None without a plan.
    """

    shortcut: int
    block: ResidualBlock | None
    reason: str
    removed: bool | None


@dataclass(frozen=True)
class Explanation:
    """The sets of channels by their first convolution, and the shortcuts, ascending."""

    scope: Scope
    sets: tuple[SetExplanation, ...]
    shortcuts: tuple[ShortcutExplanation, ...]

    def as_json(self) -> dict[str, Any]:
        """A JSON object."""
        return asdict(self)


def explain(
    graph: ChannelGraph, scope: Scope, masks: Masks | None = None, blocks: Sequence[ResidualBlock] = ()
) -> Explanation:
    """What methods may cut in a scope and, of a plan, what it keeps.

    Args:
        graph: the channel graph.
        scope: `classic` or `full`.
        masks: of a plan: convolution → channels that stay, bool [C]; None without a plan.
        blocks: of a plan: residual blocks that go.
    """
    kept = None if masks is None else _left_by(graph, masks, blocks)
    cuttable = {rule: _cuttable(graph, scope, *how) for rule, how in RULES.items()}
    ties = _ties(graph)

    def explained(one: ChannelSet) -> SetExplanation:
        tied_by = sorted(set().union(*(ties.get(layer, set()) for layer in one.convolutions)))
        may_cut = {rule: bool(channels[one.channels].any()) for rule, channels in cuttable.items()}
        held = tuple(_held(graph, one))
        tied = (f"tied by shortcut{'s' if len(tied_by) > 1 else ''} {numbered(tied_by)}",) if tied_by else ()
        return SetExplanation(
            one.convolutions,
            len(one.channels),
            *_users(graph, one),
            tuple(tied_by),
            may_cut,
            _fate(may_cut, bool(held)),
            held or (*tied, *_left_out(graph, one, scope)),
            None if kept is None else int(kept[one.channels].sum()),
        )

    gone = None if masks is None else {block.shortcut for block in blocks}
    return Explanation(scope, tuple(map(explained, graph.channel_sets())), tuple(_shortcuts(graph, gone)))


def numbered(layers: Sequence[int]) -> str:
    """Layer numbers with three or more neighbours drawn together: 1, 4–6, 9."""
    runs: list[list[int]] = []
    for layer in layers:
        if runs and layer == runs[-1][-1] + 1:
            runs[-1].append(layer)
        else:
            runs.append([layer])
    parts = (f"{run[0]}–{run[-1]}" if len(run) > 2 else ", ".join(map(str, run)) for run in runs)
    return ", ".join(parts)


def _cuttable(graph: ChannelGraph, scope: Scope, candidates: Candidates, agreement: Agreement) -> Mask:
    """Channels that go where no candidate wants any to stay."""
    nothing = {layer: np.zeros(len(graph.outputs[layer]), bool) for layer in candidates(graph, scope)}
    return ~(agreement(graph, nothing) | graph.frozen)


def _left_by(graph: ChannelGraph, masks: Masks, blocks: Sequence[ResidualBlock]) -> Mask:
    """Channels that a plan leaves to at least one convolution."""
    gone = {layer for block in blocks for layer in block.layers}
    created = np.zeros(len(graph.frozen), bool)
    for layer in graph.creators():
        created[graph.outputs[layer]] |= layer not in gone
    return graph.kept_channels(masks) & created


def _ties(graph: ChannelGraph) -> dict[int, set[int]]:
    """Convolution → shortcuts that make some of its channels one with another's."""
    ties: dict[int, set[int]] = {}
    for one in graph.channel_sets():
        if len(one.convolutions) > 1:
            mask = _mask(graph, one)
            shortcuts = {index for index in _layers(graph, Shortcut) if mask[graph.outputs[index]].any()}
            for layer in one.convolutions:
                ties.setdefault(layer, set()).update(shortcuts)
    return ties


def _users(graph: ChannelGraph, one: ChannelSet) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Layers that hand channels on, and those that read them up."""
    mask, last = _mask(graph, one), {*graph.creators(), *_layers(graph, Yolo)}
    touching = [index for index, channels in enumerate(graph.inputs) if mask[channels].any()]
    handing_on = [index for index in touching if index not in last and mask[graph.outputs[index]].any()]
    return tuple(handing_on), tuple(index for index in touching if index not in handing_on)


def _fate(may_cut: Mapping[str, bool], held: bool) -> Fate:
    if held:
        return "held"
    if all(may_cut.values()):
        return "free"
    return "tied" if any(may_cut.values()) else "left out"


def _held(graph: ChannelGraph, one: ChannelSet) -> Iterator[str]:
    mask = _mask(graph, one)
    for hold in graph.holds:
        if mask[hold.channels].any():
            yield hold.reason if hold.layer is None else f"{hold.reason} (layer {hold.layer})"


def _left_out(graph: ChannelGraph, one: ChannelSet, scope: Scope) -> Iterator[str]:
    for producer in one.convolutions if scope == "classic" else ():
        for consumer in graph.left_out_for(producer):
            pyramid = " of a spatial pyramid" if isinstance(graph.cfg.layers[consumer], Maxpool) else ""
            yield f"layer {producer} feeds {graph.cfg.name_of(consumer)}{pyramid} (classic scope)"


def _shortcuts(graph: ChannelGraph, gone: Collection[int] | None) -> Iterator[ShortcutExplanation]:
    for index in _layers(graph, Shortcut):
        found = block_of(graph, index)
        block, reason = (found, "") if isinstance(found, ResidualBlock) else (None, found)
        yield ShortcutExplanation(index, block, reason, None if gone is None else index in gone)


def _mask(graph: ChannelGraph, one: ChannelSet) -> Mask:
    mask = np.zeros(len(graph.frozen), bool)
    mask[one.channels] = True
    return mask


def _layers(graph: ChannelGraph, kind: type[Layer]) -> Iterator[int]:
    return (index for index, layer in enumerate(graph.cfg.layers) if isinstance(layer, kind))
