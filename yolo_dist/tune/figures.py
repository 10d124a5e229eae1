"""The plots of a search's page."""

from collections.abc import Mapping
from html import escape
from typing import Any

import plotly.graph_objects as go

from yolo_dist.layout import REPORT_FILE
from yolo_dist.report.figures import ACCENT, CLASS_COLOURS, REFERENCE, WARM, blank
from yolo_dist.tune.record import TrialRecord
from yolo_dist.tune.results import SearchResults

COSTS_APART = 20
"""How many times the largest cost is the smallest, from where its axis is logarithmic."""


def trade_off(results: SearchResults, up: str, right: str, labels: Mapping[str, str]) -> Any | None:
    """Finished trials by two objectives, the front as a line; hover shows a trial's values, `customdata` its report."""
    finished = [record for record in results.trials if record.state == "finished"]
    if not finished:
        return None
    on_front = [record for name in results.front if (record := results.trial(name)) is not None]
    outside = [record for record in finished if results.standing(record) == "outside the limits"]
    others = [record for record in finished if results.standing(record) == "finished"]
    knee = [record for record in on_front if record.id == results.knee]
    figure = blank(labels[right], labels[up])
    for records, name, style in (
        (outside, "outside the limits", {"color": REFERENCE, "size": 8, "symbol": "x-thin-open"}),
        (others, "other trials", {"color": REFERENCE, "size": 8}),
        (sorted(on_front, key=lambda record: record.measured[right]), "front", {"color": ACCENT, "size": 10}),
        (knee, "suggested", {"color": WARM, "size": 15, "symbol": "star"}),
    ):
        if records:
            figure.add_trace(_points(records, right, up, name, style, line=name == "front"))
    costs = [record.measured[right] for record in finished]
    if min(costs) > 0 and max(costs) > COSTS_APART * min(costs):
        figure.update_xaxes(type="log")
    figure.update_layout(height=420)
    return figure


def _points(records: list[TrialRecord], right: str, up: str, name: str, style: dict[str, Any], line: bool) -> Any:
    return go.Scatter(
        x=[record.measured[right] for record in records],
        y=[record.measured[up] for record in records],
        name=name,
        mode="lines+markers" if line else "markers",
        marker=style,
        line={"color": ACCENT, "width": 1, "dash": "dot"},
        text=[_described(record) for record in records],
        customdata=[f"trials/{record.id}/{REPORT_FILE}" for record in records],
        hovertemplate="%{text}<extra></extra>",
    )


def _described(record: TrialRecord) -> str:
    values = [f"{path}: {value}" for path, value in record.values.items()]
    measured = [f"{name} {value:,.4g}" for name, value in record.measured.items()]
    return "<br>".join(map(escape, [record.id, *values, *measured]))


def hypervolume_curve(results: SearchResults) -> Any | None:
    """Share of the objectives' space that the front covers, over time."""
    if not results.hypervolume:
        return None
    figure = blank("minutes")
    figure.add_trace(
        go.Scatter(
            x=[step.seconds / 60 for step in results.hypervolume],
            y=[step.hypervolume for step in results.hypervolume],
            text=[step.trial for step in results.hypervolume],
            mode="lines+markers",
            line={"shape": "hv", "color": ACCENT, "width": 2},
            hovertemplate="%{text}: %{y:.4f}<extra></extra>",
            showlegend=False,
        )
    )
    return figure


def importance_bars(results: SearchResults, labels: Mapping[str, str]) -> Any | None:
    """Which share of each objective each path decides."""
    if not any(results.importance.values()):
        return None
    figure = blank("share")
    for (name, shares), colour in zip(results.importance.items(), CLASS_COLOURS, strict=False):
        figure.add_trace(
            go.Bar(
                x=list(shares.values()),
                y=[escape(path) for path in shares],
                name=labels[name],
                orientation="h",
                marker_color=colour,
                hovertemplate="%{y}: %{x:.0%}<extra></extra>",
            )
        )
    figure.update_xaxes(tickformat=".0%", rangemode="tozero")
    return figure
