"""A search as one self-contained HTML page."""

from itertools import combinations
from typing import Any

from yolo_dist.report import words
from yolo_dist.report.page import fill
from yolo_dist.report.tables import Cell, Row
from yolo_dist.tune.figures import hypervolume_curve, importance_bars, trade_off
from yolo_dist.tune.record import TrialRecord
from yolo_dist.tune.results import SearchResults

LABELS = {
    "map50": "mAP50",
    "map": "mAP",
    "parameters": "Parameters",
    "macs": "MACs",
    "weight_bytes": "Weights",
    "latency_ms": "Latency",
}
TEXTS: dict[str, Any] = {
    "map50": words.accuracy,
    "map": words.accuracy,
    "parameters": words.short,
    "macs": words.short,
    "weight_bytes": words.size,
    "latency_ms": words.milliseconds,
}


def render_search(results: SearchResults) -> str:
    """The page as HTML text; points lead to the reports of their trials, which lie beside it."""
    knee = results.trial("knee")
    return fill(
        "search.html",
        results=results,
        knee=knee,
        reported={record.id for record in results.trials if record.state == "finished"},
        lead=_lead(results),
        trade_offs=[
            (f"trade-off-{number}", trade_off(results, *pair, LABELS))
            for number, pair in enumerate(combinations(results.objectives, 2))
        ],
        front=[_row(record, results) for name in results.front if (record := results.trial(name)) is not None],
        trials=[_row(record, results) for record in results.trials],
        volume=hypervolume_curve(results),
        importance=importance_bars(results, LABELS),
    )


def _lead(results: SearchResults) -> str:
    states = [record.state for record in results.trials]
    counted = ", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(states))
    return (
        f"{len(states)} trials ({counted}). {results.stages_run} stages were run in "
        f"{words.duration(results.seconds_run)}; {results.stages_taken} were taken from others, which had needed "
        f"{words.duration(results.seconds_taken)} for them."
    )


def _row(record: TrialRecord, results: SearchResults) -> Row:
    values = ", ".join(f"{path} {value}" for path, value in record.values.items())
    cells = [
        Cell(LABELS[name], TEXTS[name](record.measured.get(name))) for name in (*results.objectives, *_others(results))
    ]
    remark = f"{values}{f' · {record.reason}' if record.reason else ''}"
    return Row(record.id, remark, [Cell("", results.standing(record)), *cells])


def _others(results: SearchResults) -> list[str]:
    return [
        name for name in LABELS if name not in results.objectives and any(name in r.measured for r in results.trials)
    ]
