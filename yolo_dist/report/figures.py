"""The report's plots; each function returns a figure, or None where the run has nothing to show.

Backgrounds are transparent, so that the page's light or dark ground shows through; style.css colours texts and grids.
"""

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from itertools import pairwise
from typing import Any

import numpy as np
import plotly.graph_objects as go
from numpy.typing import NDArray

from yolo_dist.compress.sensitivity.record import Sensitivity
from yolo_dist.evaluate.metrics import Metrics
from yolo_dist.report.run import Epoch, Noise

ACCENT, REFERENCE, WARM = "#0d9488", "#94a3b8", "#d97706"
CLASS_COLOURS = ("#0d9488", "#d97706", "#6366f1", "#db2777", "#65a30d", "#0284c7", "#9333ea", "#b45309")
LOSS_COLOURS = {"total": ACCENT, "box": "#6366f1", "objectness": WARM, "class": "#db2777"}
GRID = "rgba(128,128,128,0.18)"
BAND = "rgba(128,128,128,0.07)"
DENSITY = [[0, "rgba(13,148,136,0)"], [0.02, "rgba(13,148,136,0.22)"], [0.2, "rgba(13,148,136,0.6)"], [1, ACCENT]]
LOSS_TICKS = [digit * 10.0**power for power in range(-5, 5) for digit in (1, 2, 5)]
GAMMA_TICKS = [10.0**power for power in range(-10, 5)]
LOST = [[0, "rgba(217,119,6,0)"], [1, "#b45309"]]
LEAST_RANGE = 0.01
ROW_HEIGHT = 18
FEW_EPOCHS = 8
NARROWEST_LABELLED_BAND = 0.1
CONFIG = {"displayModeBar": False, "responsive": True, "showTips": False}

StageEpochs = Mapping[str, Sequence[Epoch]]


def html(figure: Any, name: str) -> str:
    """The figure as a fragment that draws itself into an element with id `name`; needs plotly.js on the page."""
    fragment: str = figure.to_html(
        full_html=False, include_plotlyjs=False, include_mathjax=False, div_id=name, config=CONFIG, default_width="100%"
    )
    return fragment


def blank(x_title: str, y_title: str | None = None, hovermode: str = "closest") -> Any:
    """A figure with the page's fonts, grid and legend, and nothing in it."""
    figure = go.Figure()
    axis = {
        "gridcolor": GRID,
        "zeroline": False,
        "fixedrange": True,
        "title": {"standoff": 8, "font": {"size": 12}},
        "automargin": True,
    }
    figure.update_layout(
        template="none",
        height=300,
        margin={"l": 8, "r": 8, "t": 34, "b": 8},
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        font={"family": "inherit", "size": 12, "color": "#808080"},
        legend={"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0, "font": {"size": 12}},
        hovermode=hovermode,
        hoverlabel={"font": {"family": "inherit"}},
        dragmode=False,
    )
    figure.update_xaxes(**axis, title_text=x_title)
    figure.update_yaxes(**axis, title_text=y_title)
    return figure


def loss_curves(epochs: StageEpochs) -> Any | None:
    """Loss terms over the epochs of all training stages, one after the other; log scale."""
    terms = dict.fromkeys(term for stage in epochs.values() for epoch in stage for term in epoch.loss)
    if not terms:
        return None
    figure = blank("epoch", hovermode="x unified")
    _log_scale(figure, LOSS_TICKS)
    for term in sorted(terms, key=lambda term: term == "total"):
        points = [(number, epoch.loss.get(term)) for number, epoch in _numbered(epochs)]
        figure.add_trace(_line(points, term, LOSS_COLOURS.get(term, REFERENCE), 2.5 if term == "total" else 1.3))
    return _with_stage_bands(figure, epochs)


def accuracy_curves(epochs: StageEpochs) -> Any | None:
    """mAP50 and mAP at the epochs that were evaluated, over all training stages."""
    names = {"map50": ("mAP50", ACCENT), "map": ("mAP", WARM)}
    figure = blank("epoch", hovermode="x unified")
    for key, (label, colour) in names.items():
        points = [(number, getattr(epoch, key)) for number, epoch in _numbered(epochs)]
        seen = [point for point in points if point[1] is not None]
        if seen:
            figure.add_trace(_line(seen, label, colour, 2.5, mode="lines+markers"))
    if not figure.data:
        return None
    figure.update_yaxes(range=[0, 1])
    return _with_stage_bands(figure, epochs)


def gamma_histograms(epochs: Sequence[Epoch]) -> Any | None:
    """Share of channels per |γ| bin (log scale) over the epochs of one stage, with the median |γ|."""
    seen = [(epoch.epoch, epoch.gauge.histogram) for epoch in epochs if epoch.gauge and epoch.gauge.histogram]
    if not seen:
        return None
    edges = _positive(seen[-1][1].edges)
    columns = {number: np.asarray(bins.counts, float) for number, bins in seen if _positive(bins.edges) == edges}
    shares = np.stack([100 * counts / max(counts.sum(), 1) for counts in columns.values()], axis=1)
    occupied = np.flatnonzero(shares.any(axis=1))
    bins = slice(occupied[0], occupied[-1] + 1) if len(occupied) else slice(0, len(shares))
    figure = blank("epoch")
    figure.add_trace(_density(list(columns), edges[bins.start : bins.stop + 1], shares[bins]))
    medians = [
        (epoch.epoch, epoch.gauge.quantiles[0.5]) for epoch in epochs if epoch.gauge and 0.5 in epoch.gauge.quantiles
    ]
    if medians:
        figure.add_trace(
            _line([(number, max(value, edges[bins.start])) for number, value in medians], "median", WARM, 2)
        )
    _log_scale(figure, GAMMA_TICKS)
    figure.update_yaxes(showgrid=False, ticks="")
    figure.update_xaxes(showgrid=False, ticks="")
    return _with_whole_epochs(figure, len(columns))


def sparsity_shares(epochs: Sequence[Epoch]) -> Any | None:
    """The gauge's shares over the epochs of one stage, in percent: prunable, |γ| under 1e-2 and under 1e-3."""
    gauges = {epoch.epoch: epoch.gauge for epoch in epochs if epoch.gauge}
    lines = [
        ("prunable", ACCENT, 2.5, [gauge.prunable for gauge in gauges.values()]),
        ("|γ| < 0.01", WARM, 1.5, [gauge.below.get("1e-2") for gauge in gauges.values()]),
        ("|γ| < 0.001", REFERENCE, 1.5, [gauge.below.get("1e-3") for gauge in gauges.values()]),
    ]
    figure = blank("epoch", hovermode="x unified")
    for label, colour, width, shares in lines:
        if any(share is not None for share in shares):
            figure.add_trace(_line(zip(gauges, shares, strict=True), label, colour, width))
    if not figure.data:
        return None
    figure.update_yaxes(range=[0, 1.02], tickformat=".0%")
    return _with_whole_epochs(figure, len(gauges))


def noise_of_layers(noise: Noise) -> Any | None:
    """Signal-to-noise ratio of every layer's output in dB, one bar a layer; heads in another colour."""
    measured = [layer for layer in noise.layers if layer.snr_db is not None]
    if not measured:
        return None
    figure = blank("layer", "dB")
    figure.add_trace(
        go.Bar(
            x=[layer.layer for layer in measured],
            y=[layer.snr_db for layer in measured],
            marker_color=[WARM if layer.kind == "yolo" else ACCENT for layer in measured],
            text=[layer.kind for layer in measured],
            hovertemplate="%{x} [%{text}]: %{y:.1f} dB<extra></extra>",
            textposition="none",
            showlegend=False,
        )
    )
    return figure


def mean_precision_recall(models: Mapping[str, Metrics]) -> Any | None:
    """Mean precision over recall at IoU 0.5, one curve a model; the last is the strong one."""
    curves = {stage: metrics.precision_recall.mean for stage, metrics in models.items()}
    drawn = {stage: curve for stage, curve in curves.items() if curve}
    if not drawn:
        return None
    figure = _precision_recall_figure()
    for (stage, curve), colour in zip(drawn.items(), _reference_then_accent(len(drawn)), strict=True):
        figure.add_trace(_precision_line(curve, stage, colour))
    return figure


def class_precision_recall(models: Mapping[str, Metrics], classes: Iterable[str]) -> Any | None:
    """Precision over recall at IoU 0.5 of `classes`: the last model solid, the first dotted."""
    figure = _precision_recall_figure()
    evaluations = list(models.items())
    for name, colour in zip(classes, CLASS_COLOURS, strict=False):
        for stage, metrics in evaluations[:1] + evaluations[1:][-1:]:
            curve = metrics.precision_recall.per_class.get(name)
            if not curve:
                continue
            newest = stage == evaluations[-1][0]
            line = _precision_line(curve, f"{name}" if newest else f"{name}, {stage}", colour)
            line.update(legendgroup=escape(name), showlegend=newest)
            line.line.update(dash="solid" if newest else "dot", width=2 if newest else 1.3)
            figure.add_trace(line)
    return figure if figure.data else None


def sensitivity_map(sensitivity: Sensitivity) -> Any | None:
    """mAP50 lost by changing each set of layers alone: a row a set, a column an amount; darker is worse."""
    before, sets = sensitivity.unchanged, sensitivity.sets
    if before is None or not any(curve.measured for curve in sets):
        return None
    lost = [[before.map50 - trial.outcome.map50 if trial.outcome else None for trial in curve.trials] for curve in sets]
    figure = blank(sensitivity.unit, "layer")
    figure.add_trace(
        go.Heatmap(
            x=[f"{trial.amount:g}" for trial in sets[0].trials],
            y=[curve.name for curve in sets],
            z=lost,
            zmin=0,
            zmax=max(before.map50, LEAST_RANGE),
            colorscale=LOST,
            colorbar={"title": {"text": "mAP50 lost"}, "thickness": 12, "outlinewidth": 0},
            hovertemplate="layer %{y}, " + sensitivity.unit + " %{x}<br>mAP50 − %{z:.3f}<extra></extra>",
        )
    )
    figure.update_layout(height=ROW_HEIGHT * len(sets) + 110)
    figure.update_xaxes(type="category", showgrid=False)
    figure.update_yaxes(type="category", showgrid=False, autorange="reversed")
    return figure


def sensitivity_curves(sensitivity: Sensitivity) -> Any | None:
    """mAP50 and mAP where all candidates are changed at once; the first point is the network as it is."""
    before, measured = sensitivity.unchanged, sensitivity.together.measured
    if before is None or not measured:
        return None
    by_bits = sensitivity.unit == "bits"
    start = "float" if by_bits else 0.0
    points = [(start, before), *((f"{one.amount:g}" if by_bits else one.amount, outcome) for one, outcome in measured)]
    figure = blank(sensitivity.unit, hovermode="x unified")
    for key, label, colour in (("map50", "mAP50", ACCENT), ("map", "mAP", WARM)):
        line = [(amount, getattr(outcome, key)) for amount, outcome in points]
        figure.add_trace(_line(line, label, colour, 2.5, mode="lines+markers"))
    figure.update_xaxes(**({"type": "category"} if by_bits else {"range": [-0.01, 1]}))
    figure.update_yaxes(rangemode="tozero")
    return figure


def _line(
    points: Iterable[tuple[float | str, float | None]], name: str, colour: str, width: float, mode: str = ""
) -> Any:
    xs, ys = zip(*points, strict=True)
    style = mode or ("lines" if len(xs) > 1 else "markers")
    line = {"color": colour, "width": width}
    return go.Scatter(x=xs, y=ys, name=escape(name), mode=style, line=line, marker={"size": 5, "color": colour})


def _density(epochs: Sequence[int], edges: Sequence[float], shares: NDArray[np.float64]) -> Any:
    """A heat map of shares in percent, [bins, epochs]."""
    return go.Heatmap(
        x=epochs,
        y=edges,
        z=shares,
        colorscale=DENSITY,
        showscale=False,
        hovertemplate="epoch %{x}<br>%{z:.1f} % of channels<extra></extra>",
    )


def _numbered(epochs: StageEpochs) -> list[tuple[int, Epoch]]:
    """All epochs of all stages, numbered through from 1."""
    return list(enumerate((epoch for stage in epochs.values() for epoch in stage), 1))


def _with_whole_epochs(figure: Any, count: int) -> Any:
    """Keeps the axis of a short stage from counting half epochs."""
    if count < FEW_EPOCHS:
        figure.update_xaxes(dtick=1)
    return figure


def _with_stage_bands(figure: Any, epochs: StageEpochs) -> Any:
    """Shades every other stage and writes the stages' names above the plot."""
    ends = np.cumsum([len(stage) for stage in epochs.values()])
    borders = [0.5, *(float(end) + 0.5 for end in ends)]
    for index, (stage, (left, right)) in enumerate(zip(epochs, pairwise(borders), strict=True)):
        if index % 2:
            figure.add_vrect(x0=left, x1=right, fillcolor=BAND, line_width=0, layer="below")
        if right - left >= NARROWEST_LABELLED_BAND * ends[-1]:
            figure.add_annotation(
                x=(left + right) / 2, y=1, yref="paper", yanchor="bottom", text=escape(stage), showarrow=False
            )
    figure.update_xaxes(range=[borders[0], borders[-1]], showgrid=False)
    figure.update_layout(legend={"y": -0.2, "yanchor": "top"})
    return _with_whole_epochs(figure, int(ends[-1]))


def _log_scale(figure: Any, ticks: Sequence[float]) -> None:
    figure.update_yaxes(type="log", tickvals=ticks, ticktext=[f"{tick:g}" for tick in ticks])


def _positive(edges: Sequence[float]) -> list[float]:
    """Bin edges for a log axis: a first edge at zero moves one bin's width below the second."""
    if edges[0] > 0 or len(edges) < 3:
        return list(edges)
    return [edges[1] ** 2 / edges[2], *edges[1:]]


def _reference_then_accent(count: int) -> list[str]:
    return [REFERENCE] * (count - 1) + [ACCENT]


def _precision_recall_figure() -> Any:
    figure = blank("recall", "precision", hovermode="x unified")
    figure.update_xaxes(range=[0, 1.01])
    figure.update_yaxes(range=[0, 1.03])
    return figure


def _precision_line(curve: Sequence[float], name: str, colour: str) -> Any:
    recall = np.linspace(0, 1, len(curve)).round(4).tolist()
    return _line(zip(recall, curve, strict=True), name, colour, 2)
