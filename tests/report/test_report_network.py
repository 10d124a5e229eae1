"""The picture of a network before pruning, as the numbers it is drawn from."""

import json
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from small_networks import cfg_of, conv, head

from yolo_dist.compress.graph import ChannelGraph
from yolo_dist.compress.pruning import METHODS, PruneConfig
from yolo_dist.darknet.cfg import Layer, Route, Shortcut, Upsample
from yolo_dist.darknet.zoo import zoo_cfg
from yolo_dist.report import figures
from yolo_dist.report.network import COLOURS, FOOT, PALE, REMOVED, TIES, network
from yolo_dist.report.run import Plan, Pruning

BLOCK: tuple[Layer, ...] = (conv(4), conv(16, 3), Shortcut(from_layer=-3))
LAYERS: tuple[Layer, ...] = (
    *(conv(16), *BLOCK, *BLOCK),  # 0 … 6, tied by 3 and 6
    *(conv(8, stride=2), conv(4), Upsample(), Route(layers=(-1, 6)), conv(64), *head()),  # 7 … 13
)


def picture(keep: dict[int, list[int]], blocks: Sequence[dict[str, Any]] = ()) -> Any:
    cfg = cfg_of(*LAYERS)
    graph = ChannelGraph.from_cfg(cfg)
    layers = {layer: {"channels": len(graph.outputs[layer]), "keep": kept} for layer, kept in keep.items()}
    return network(Pruning(cfg, "classic", Plan.model_validate({"layers": layers, "blocks": blocks})))


def bars(figure: Any, opacity: float) -> dict[int, tuple[float, str]]:
    """Layer → height and colour of its bar."""
    return {
        x: (y, colour)
        for bar in figure.data
        if bar.type == "bar" and bar.marker.opacity == opacity
        for x, y, colour in zip(bar.x, bar.y, bar.marker.color, strict=True)
    }


def texts(figure: Any) -> list[str]:
    (layers,) = (trace for trace in figure.data if trace.name == "layers")
    return [text.replace("<br>", " ") for text in layers.hovertext]


def arcs(figure: Any) -> list[tuple[int, int, float, str, str]]:
    """Source, reader, lowest point, colour and dash of every line between two layers."""
    found = []
    for trace in (trace for trace in figure.data if trace.name == "reads"):
        points: list[tuple[float, float]] = []
        for x, y in zip(trace.x, trace.y, strict=True):
            if y is None:
                depth = min(point[1] for point in points)
                found.append((round(points[0][0]), round(points[-1][0]), depth, trace.line.color, trace.line.dash))
                points = []
            else:
                points.append((x, y))
    return found


def test_bars_are_as_high_as_the_root_of_channels_before_and_kept() -> None:
    figure = picture({1: [0], 11: list(range(16))})
    before, kept = bars(figure, PALE), bars(figure, 1)
    assert sorted(before) == [0, 1, 2, 4, 5, 7, 8, 11, 12]
    assert {layer: height for layer, (height, _) in before.items()} == pytest.approx(
        {0: 0.5, 1: 0.25, 2: 0.5, 4: 0.25, 5: 0.5, 7: math.sqrt(8 / 64), 8: 0.25, 11: 1, 12: math.sqrt(12 / 64)}
    )
    assert {bar.width for bar in figure.data if bar.type == "bar"} == {0.8}, "no bar reaches into its neighbour's place"
    changed = {layer: kept[layer][0] for layer in kept if kept[layer] != before[layer]}
    assert changed == pytest.approx({1: 0.125, 11: 0.5})
    ticks = dict(zip(figure.layout.yaxis.ticktext, figure.layout.yaxis.tickvals, strict=True))
    assert ticks == pytest.approx({"1": FOOT + 0.125, "4": FOOT + 0.25, "16": FOOT + 0.5, "64": FOOT + 1})


def test_colours_tell_what_may_be_cut() -> None:
    colours = {layer: colour for layer, (_, colour) in bars(picture({}), 1).items()}
    assert {colours[layer] for layer in (0, 2, 5)} == {TIES[0]}
    assert {colours[layer] for layer in (1, 4, 7, 11)} == {COLOURS["free"]}
    assert (colours[8], colours[12]) == (COLOURS["left out"], COLOURS["held"])
    legend = {bar.name for bar in picture({}).data if bar.type == "bar" and bar.showlegend}
    assert legend == {"may be cut", "tied by shortcuts", "left out by the scope", "must stay"}


def test_every_read_is_a_line_and_those_of_distant_layers_are_arcs() -> None:
    drawn = arcs(picture({}))
    neighbours = [(i, i + 1) for i in range(13)]
    assert sorted((source, reader) for source, reader, *_ in drawn) == sorted([*neighbours, (0, 3), (3, 6), (6, 10)])
    depths = {(source, reader): depth for source, reader, depth, *_ in drawn}
    assert all(depths[pair] == 0 for pair in neighbours)
    assert depths[6, 10] < depths[0, 3] == pytest.approx(depths[3, 6])
    coloured = {(source, reader) for source, reader, _, colour, _ in drawn if colour == TIES[0]}
    assert coloured == {(2, 3), (0, 3), (5, 6), (3, 6)}
    assert depths[0, 3] == pytest.approx(depths[6, 10] * math.sqrt(3 / 4))


def test_a_removed_block_is_crossed_out() -> None:
    figure = picture({}, [{"shortcut": 3, "identity": 0, "feeding": 2, "branch": [1, 2]}])
    (crosses,) = (trace for trace in figure.data if trace.name == "removed with its block")
    assert dict(zip(crosses.x, crosses.y, strict=True)) == pytest.approx({1: FOOT + 0.125, 2: FOOT + 0.25, 3: 0})
    assert crosses.marker.line.color == REMOVED
    assert [(shape.x0, shape.x1) for shape in figure.layout.shapes] == [(0.5, 3.5)]
    assert {layer for layer, (height, _) in bars(figure, 1).items() if height == 0} == {1, 2}
    assert {reader for _, reader, _, _, dash in arcs(figure) if dash == "dot"} == {1, 2, 3}
    told = texts(figure)
    assert "16 → 0 channels" in told[2]
    assert told[3].endswith("closes a residual block with 1, 2 removed with the block of shortcut 3")
    assert "16 → 16 channels" in told[0]


def test_pointing_at_a_layer_explains_it() -> None:
    told = texts(picture({1: [0, 2]}))
    assert len(told) == len(LAYERS)
    assert told[0].startswith("<b>layer 0 [convolutional]</b> reads the image 16 → 16 channels its channels are also")
    assert told[1] == "<b>layer 1 [convolutional]</b> reads 0 4 → 2 channels read by 2 may be cut: yes"
    assert told[8].endswith("may be cut: no: layer 8 feeds layer 9 [upsample] (classic scope)")
    assert told[10] == "<b>layer 10 [route]</b> reads 9, 6"


@pytest.mark.parametrize(
    ("name", "layers", "method"),
    [
        ("yolov3-tiny", 24, "normal"),
        ("yolov4-tiny", 38, "slim"),
        ("yolov3tiny-mobilenet-small", 61, "layer"),
        ("yolov4", 162, "layer-channel"),
    ],
)
def test_networks_of_the_zoo_fit_into_the_picture(name: str, layers: int, method: str) -> None:
    cfg = zoo_cfg(name)
    graph = ChannelGraph.from_cfg(cfg)
    importance = {i: np.linspace(0.01, 1, len(graph.outputs[i]), dtype=np.float32) for i in graph.convolutions()}
    plan = METHODS[method](graph, importance, PruneConfig(method=method, percent=0.4))
    figure = network(Pruning(cfg, "classic", Plan.model_validate_json(json.dumps(plan.as_json()))))
    assert len(texts(figure)) == layers
    before, kept = bars(figure, PALE), bars(figure, 1)
    assert sorted(before) == graph.creators()
    assert max(height for height, _ in before.values()) == 1
    assert all(kept[layer][0] <= before[layer][0] for layer in before)
    low, high = figure.layout.yaxis.range
    assert all(low < depth <= 0 for *_, depth, _, _ in arcs(figure))
    assert high > 1 + FOOT
    assert len(figures.html(figure, "network")) < 200_000
