"""The report's tables and tiles as rows of text, ready to be laid out."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from yolo_dist.evaluate.metrics import ClassMetrics, Metrics
from yolo_dist.report import words
from yolo_dist.report.run import BeforeAfter, Epoch, Proof, StageResult

WITHIN_NOISE = 0.02
"""mAP differences below this are seen between seeds of one recipe: neither better nor worse."""


@dataclass(frozen=True)
class Cell:
    """One number: its heading, text, remark beside it, tone ("better", "worse", "") and bar length in [0, 1]."""

    label: str
    text: str
    note: str = ""
    tone: str = ""
    bar: float | None = None


@dataclass(frozen=True)
class Row:
    """One line of a table; `remark` stands small under its name."""

    name: str
    remark: str
    cells: list[Cell]
    cached: bool = False


@dataclass(frozen=True)
class _Cost:
    """A quantity that is better when smaller; `key` names it in results.json and proof.json."""

    label: str
    key: str
    text: Callable[[float | None], str]

    def of(self, stage: StageResult | None) -> float | None:
        return _of(stage, self.key)


COSTS = (
    _Cost("Parameters", "parameters", words.short),
    _Cost("MACs", "macs", words.short),
    _Cost("Weights", "weight_bytes", words.size),
    _Cost("Latency", "latency_ms", words.milliseconds),
)


def tiles(first: StageResult, last: StageResult) -> list[Cell]:
    """The headline's numbers: the last model's, with the first one's beside them."""
    reference = first if first.id != last.id else None
    cells = [_was(_accuracy_cell("mAP50", last.map50, _of(reference, "map50")), words.accuracy(first.map50))]
    for cost in COSTS:
        if cost.key != "macs":
            cell = _cost_cell(cost.label, cost, cost.of(last), cost.of(reference))
            cells.append(_was(cell, cost.text(cost.of(first))))
    return [cell for cell in cells if cell.text != words.MISSING]


def stage_rows(results: Sequence[StageResult], epochs: dict[str, list[Epoch]]) -> list[Row]:
    """One row a stage, each number compared with the first stage that made a model."""
    first = next((result for result in results if result.parameters is not None), None)
    largest = {cost.key: max((cost.of(result) or 0 for result in results), default=0) for cost in COSTS}
    return [
        Row(
            result.id,
            result.kind,
            [
                *_measured(result, first if first is not result else None, largest),
                Cell("Time", words.duration(result.seconds), _speed(epochs.get(result.id, []))),
            ],
            result.cached,
        )
        for result in results
    ]


def proof_rows(proof: Proof) -> list[Row]:
    """What pruning saved and cost, before and after; mAP50 also with the channels only masked, where measured."""
    rows = [_proof_row(cost, getattr(proof, cost.key)) for cost in COSTS]
    accuracy = proof.map50
    remark = "" if accuracy.masked is None else f"{words.accuracy(accuracy.masked)} masked only"
    before = _accuracy_cell("Before", accuracy.before, None)
    rows.append(Row("mAP50", remark, [before, _accuracy_cell("After", accuracy.after, accuracy.before)]))
    return [row for row in rows if any(cell.text != words.MISSING for cell in row.cells)]


def class_rows(first: Metrics | None, last: Metrics) -> list[Row]:
    """One row a class, most frequent first; compared with the first model where there is one."""
    before = first.per_class if first else {}
    by_frequency = sorted(last.per_class.items(), key=lambda item: -item[1].objects)
    return [
        Row(
            name,
            f"{entry.objects} objects",
            [
                _accuracy_cell("mAP50", entry.map50, _of(before.get(name), "map50")),
                _accuracy_cell("mAP", entry.map, _of(before.get(name), "map")),
            ],
        )
        for name, entry in by_frequency
    ]


def source_rows(first: Metrics | None, last: Metrics) -> list[Row]:
    """One row a dataset of a mixture, on its own images and classes; compared with the first model if there is one."""
    before = first.sources if first else {}
    return [
        Row(
            name,
            f"{own.images} images, {len(own.per_class)} class{'es' if len(own.per_class) != 1 else ''}",
            [
                _accuracy_cell("mAP50", own.map50, _of(before.get(name), "map50")),
                _accuracy_cell("mAP", own.map, _of(before.get(name), "map")),
            ],
        )
        for name, own in last.sources.items()
    ]


def _measured(result: StageResult, reference: StageResult | None, largest: dict[str, float]) -> list[Cell]:
    return [
        _accuracy_cell("mAP50", result.map50, _of(reference, "map50")),
        _accuracy_cell("mAP", result.map, _of(reference, "map")),
        *(_cost_cell(cost.label, cost, cost.of(result), cost.of(reference), largest[cost.key]) for cost in COSTS),
    ]


def _speed(epochs: Sequence[Epoch]) -> str:
    speeds = [epoch.images_per_second for epoch in epochs if epoch.images_per_second]
    return f"{words.short(speeds[-1])} images/s" if speeds else ""


def _accuracy_cell(label: str, value: float | None, reference: float | None) -> Cell:
    note = words.difference(value, reference)
    gap = (value or 0) - (reference or 0) if note else 0
    tone = "better" if gap >= WITHIN_NOISE else "worse" if gap <= -WITHIN_NOISE else ""
    return Cell(label, words.accuracy(value), note, tone, value)


def _cost_cell(
    label: str, cost: _Cost, value: float | None, reference: float | None, largest: float | None = None
) -> Cell:
    """`value` compared with `reference`; its bar is in proportion to `largest`, which defaults to the reference."""
    whole = largest or reference
    bar = min(1.0, value / whole) if value is not None and whole else None
    return Cell(label, cost.text(value), words.change(value, reference), _cost_tone(value, reference), bar)


def _cost_tone(value: float | None, before: float | None) -> str:
    if value is None or not before:
        return ""
    ratio = value / before
    return "better" if ratio < 1 / words.NOTICEABLE_RATIO else "worse" if ratio > words.NOTICEABLE_RATIO else ""


def _was(cell: Cell, reference: str) -> Cell:
    return Cell(cell.label, cell.text, f"{cell.note} · was {reference}" if cell.note else "", cell.tone, cell.bar)


def _proof_row(cost: _Cost, values: BeforeAfter) -> Row:
    largest = max(values.before or 0, values.after or 0)
    before = _cost_cell("Before", cost, values.before, None, largest)
    return Row(cost.label, "", [before, _cost_cell("After", cost, values.after, values.before, largest)])


def _of(measured: StageResult | Metrics | ClassMetrics | None, key: str) -> float | None:
    value: float | None = getattr(measured, key, None)
    return value
