"""The picture of a network before pruning: which layers read which, and what became of every convolution's channels.

Layers stand along the x axis in their order. Above it, bars are channels before (pale) and kept (strong), as high as
the square root of their number, so that 16 are seen beside 1024. Below it, arcs are reads of other layers than the one
before.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from html import escape
from itertools import cycle
from textwrap import wrap
from typing import Any

import plotly.graph_objects as go

from yolo_dist.compress.graph import ChannelGraph
from yolo_dist.compress.pruning.explanation import Explanation, Fate, SetExplanation, explain, numbered
from yolo_dist.darknet.cfg import Shortcut, sources
from yolo_dist.report.figures import ACCENT, REFERENCE, WARM, blank
from yolo_dist.report.run import Pruning

TIES = ("#6366f1", "#db2777", "#0284c7", "#9333ea")
"""Colours of tied sets, one after the other."""
COLOURS: dict[Fate, str] = {"free": ACCENT, "tied": TIES[0], "left out": WARM, "held": REFERENCE}
LABELS: dict[Fate, str] = {
    "free": "may be cut",
    "tied": "tied by shortcuts",
    "left out": "left out by the scope",
    "held": "must stay",
}
REMOVED, REMOVED_BAND = "#dc2626", "rgba(220,38,38,0.10)"
SYMBOLS = {
    "convolutional": "circle",
    "depthwise": "circle-open",
    "se": "hourglass-open",
    "shortcut": "cross",
    "route": "diamond",
    "maxpool": "triangle-down",
    "avgpool": "triangle-down",
    "upsample": "triangle-up",
    "yolo": "star",
}
FOOT = 0.05
"""Where bars start above the axis; the highest ends at 1 + FOOT."""
DEEPEST_ARC = 0.55
POINTS_OF_AN_ARC = 17
HEIGHT = 440
TICKS = [4**power for power in range(9)]
SMALLEST_TICK = 1 / 64
"""As a share of the widest convolution; labels of smaller ones would touch each other."""
LONGEST_LINE = 64
PALE, BAR_WIDTH = 0.3, 0.8


@dataclass(frozen=True)
class _Pruned:
    """A network and what became of it.

    Attributes:
        before, after: channels of each convolution.
        gone: layers that go with a residual block → its shortcut.
        colours: of convolutions, and of shortcuts that tie some; what is tied to each other has the same.
    """

    graph: ChannelGraph
    explanation: Explanation
    before: dict[int, int]
    after: dict[int, int]
    gone: dict[int, int]
    colours: dict[int, str]

    @classmethod
    def by(cls, pruning: Pruning) -> "_Pruned":
        graph = ChannelGraph.from_cfg(pruning.cfg)
        masks, blocks = pruning.plan.masks(), pruning.plan.blocks
        explanation = explain(graph, pruning.scope, masks, blocks)
        kept = graph.kept_channels(masks)
        gone = {layer: block.shortcut for block in blocks for layer in block.layers}
        before = {layer: len(graph.outputs[layer]) for layer in graph.creators()}
        after = {layer: 0 if layer in gone else int(kept[graph.outputs[layer]].sum()) for layer in before}
        return cls(graph, explanation, before, after, gone, _colours(explanation))

    def height(self, channels: int) -> float:
        """Of a bar; that of the widest convolution is 1."""
        return math.sqrt(channels / max(self.before.values()))


def network(pruning: Pruning) -> Any:
    """What a prune stage was given, and what its plan keeps of it."""
    pruned = _Pruned.by(pruning)
    figure = blank("layer", hovermode="x")
    figure.update_layout(height=HEIGHT, barmode="overlay")
    figure.update_xaxes(range=[-1, len(pruning.cfg.layers)], showgrid=False)
    widest = max(pruned.before.values())
    ticks = [tick for tick in TICKS if SMALLEST_TICK * widest <= tick <= widest]
    figure.update_yaxes(
        range=[-DEEPEST_ARC - FOOT, 1 + 2 * FOOT],
        tickvals=[FOOT + pruned.height(tick) for tick in ticks],
        ticktext=[str(tick) for tick in ticks],
    )
    _draw_reads(figure, pruned)
    _draw_bars(figure, pruned)
    _draw_layers(figure, pruned)
    _cross_out(figure, pruned)
    return figure


def _colours(explanation: Explanation) -> dict[int, str]:
    ties = cycle(TIES)
    colours: dict[int, str] = {}
    for one in explanation.sets:
        colour = next(ties) if one.fate == "tied" else COLOURS[one.fate]
        for layer in (*one.convolutions, *one.tied_by):
            colours.setdefault(layer, colour)
    return colours


def _draw_reads(figure: Any, pruned: _Pruned) -> None:
    """Lines along the axis where a layer reads the one before, arcs under it for all other reads."""
    layers = pruned.graph.cfg.layers
    reads = [(source, reader) for reader, layer in enumerate(layers) for source in sources(layer, reader)]
    longest = max((reader - source for source, reader in reads), default=1)
    lines: dict[tuple[str, str], list[tuple[float, float | None]]] = {}
    for source, reader in reads:
        colour = pruned.colours.get(reader, REFERENCE) if isinstance(layers[reader], Shortcut) else REFERENCE
        points = lines.setdefault((colour, "dot" if reader in pruned.gone else "solid"), [])
        points += [*_arc(source, reader, longest), (reader, None)]
    for (colour, dash), points in lines.items():
        xs, ys = zip(*points, strict=True)
        line = {"color": colour, "width": 1.2, "dash": dash}
        figure.add_trace(
            go.Scatter(x=xs, y=ys, mode="lines", line=line, hoverinfo="skip", showlegend=False, name="reads")
        )


def _arc(source: int, reader: int, longest: int) -> Iterator[tuple[float, float]]:
    """Points of a half ellipse under the axis, deeper the further apart; of a line between neighbours."""
    if reader - source == 1:
        yield from ((source, 0.0), (reader, 0.0))
        return
    depth = DEEPEST_ARC * math.sqrt((reader - source) / longest)
    for point in range(POINTS_OF_AN_ARC):
        angle = math.pi * point / (POINTS_OF_AN_ARC - 1)
        yield (source + reader - (reader - source) * math.cos(angle)) / 2, -depth * math.sin(angle)


def _draw_bars(figure: Any, pruned: _Pruned) -> None:
    fates = {layer: one.fate for one in pruned.explanation.sets for layer in one.convolutions}
    for fate, label in LABELS.items():
        layers = [layer for layer in pruned.before if fates[layer] == fate]
        if not layers:
            continue
        colours = [pruned.colours[layer] for layer in layers]
        for counts, opacity in ((pruned.before, PALE), (pruned.after, 1)):
            figure.add_trace(
                go.Bar(
                    x=layers,
                    y=[pruned.height(counts[layer]) for layer in layers],
                    base=FOOT,
                    width=BAR_WIDTH,  # plotly's own is as wide as the bars of one colour stand apart
                    name=label,
                    legendgroup=fate,
                    showlegend=opacity == 1,
                    marker={"color": colours, "opacity": opacity, "line": {"width": 0}},
                    hoverinfo="skip",
                )
            )


def _draw_layers(figure: Any, pruned: _Pruned) -> None:
    layers = pruned.graph.cfg.layers
    marker = {
        "symbol": [SYMBOLS.get(layer.section, "square") for layer in layers],
        "color": [pruned.colours.get(index, REFERENCE) for index in range(len(layers))],
        "size": 6,
    }
    figure.add_trace(
        go.Scatter(
            x=list(range(len(layers))),
            y=[0] * len(layers),
            mode="markers",
            marker=marker,
            hovertext=[_hovertext(pruned, index) for index in range(len(layers))],
            hoverinfo="text",
            showlegend=False,
            name="layers",
        )
    )


def _cross_out(figure: Any, pruned: _Pruned) -> None:
    """A cross on every layer that goes with a residual block, and a band behind the block."""
    if not pruned.gone:
        return
    for shortcut in set(pruned.gone.values()):
        layers = [layer for layer, block in pruned.gone.items() if block == shortcut]
        figure.add_vrect(
            x0=min(layers) - 0.5, x1=max(layers) + 0.5, fillcolor=REMOVED_BAND, line_width=0, layer="below"
        )
    heights = [FOOT + pruned.height(pruned.before[i]) / 2 if i in pruned.before else 0 for i in pruned.gone]
    marker = {"symbol": "x-thin", "size": 9, "line": {"color": REMOVED, "width": 1.6}}
    figure.add_trace(
        go.Scatter(
            x=list(pruned.gone),
            y=heights,
            mode="markers",
            marker=marker,
            hoverinfo="skip",
            name="removed with its block",
        )
    )


def _hovertext(pruned: _Pruned, index: int) -> str:
    """A layer's name and what is known about it, as the HTML that plotly understands."""
    parts = [part for line in _facts(pruned, index) for part in wrap(line, LONGEST_LINE)]
    return "<br>".join([f"<b>{escape(pruned.graph.cfg.name_of(index))}</b>", *map(escape, parts)])


def _facts(pruned: _Pruned, index: int) -> Iterator[str]:
    yield f"reads {numbered(sources(pruned.graph.cfg.layers[index], index)) or 'the image'}"
    if index in pruned.before:
        yield f"{pruned.before[index]} → {pruned.after[index]} channels"
    for one in pruned.explanation.sets:
        if index in one.convolutions:
            yield from _facts_of_channels(one, index)
    for shortcut in pruned.explanation.shortcuts:
        if shortcut.shortcut == index:
            yield (
                f"closes a residual block with {numbered(shortcut.block.branch)}"
                if shortcut.block
                else f"closes no removable block: {shortcut.reason}"
            )
    if index in pruned.gone:
        yield f"removed with the block of shortcut {pruned.gone[index]}"


def _facts_of_channels(one: SetExplanation, convolution: int) -> Iterator[str]:
    others = [layer for layer in one.convolutions if layer != convolution]
    if others:
        yield f"its channels are also those of {numbered(others)}"
    if one.handed_on_by:
        yield f"handed on by {numbered(one.handed_on_by)}"
    if one.read_by:
        yield f"read by {numbered(one.read_by)}"
    yield f"may be cut: {one.verdict}"
