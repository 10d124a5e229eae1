"""Puts a run's figures, tables and pictures into one self-contained HTML page."""

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import PurePosixPath
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from plotly.offline import get_plotlyjs
from upath import UPath

from yolo_dist.evaluate.metrics import Metrics
from yolo_dist.layout import REPORT_FILE
from yolo_dist.report import figures, tables, words
from yolo_dist.report.machine import machine_facts
from yolo_dist.report.network import network
from yolo_dist.report.run import Epoch, Run, Stage, read_run
from yolo_dist.storage import Url, location, publish
from yolo_dist.train.tracking.stage import without_credentials

MOST_SAMPLES = 6
MOST_CLASS_CURVES = len(figures.CLASS_COLOURS)


@dataclass(frozen=True)
class Picture:
    """An image inside the page: the stage that drew it, its file's name and a data URI."""

    stage: str
    name: str
    source: str


def build_report(run: Url) -> UPath:
    """Writes `report.html` into a run folder, from whatever the run has finished.

    Args:
        run: the run's folder, local or any URL that fsspec knows.

    Returns:
        Where the page is. It needs no network: scripts, styles and pictures are inside.

    Raises:
        DataError: results.json is missing, or a file of the run is broken; names the file.
    """
    folder = location(run)
    page = folder / REPORT_FILE
    publish(page, render(read_run(folder)))
    return page


def render(run: Run) -> str:
    """The page as HTML text; everything that came from files is escaped."""
    return fill("page.html", run=run, words=words, **_head(run), **_body(run))


def fill(template: str, **values: Any) -> str:
    """A template of this folder with values in it, escaped; scripts and styles are inside."""
    environment = Environment(
        loader=PackageLoader("yolo_dist.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals["network"] = network
    environment.filters["figure"] = lambda figure, name: Markup(figures.html(figure, name))
    return environment.get_template(template).render(
        written=f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
        machine=machine_facts(),
        plotly_js=Markup(get_plotlyjs()),
        **values,
    )


def _head(run: Run) -> dict[str, Any]:
    results = [stage.result for stage in run.stages]
    ends = (run.models[0].result, run.models[-1].result) if run.models else None
    return {
        "headline": words.headline(*ends) if ends else "No model yet",
        "summary": words.summary(*ends) if ends else "",
        "subject": _subject(run),
        "tiles": tables.tiles(*ends) if ends else [],
        "stages": tables.stage_rows(results, run.epochs),
    }


def _body(run: Run) -> dict[str, Any]:
    epochs = _in_stage_order(run)
    evaluated = _first_and_last({s.result.id: s.evaluation for s in run.stages if s.evaluation})
    last = list(evaluated.values())[-1] if evaluated else None
    return {
        "loss": figures.loss_curves(epochs),
        "accuracy": figures.accuracy_curves(epochs),
        "sparse": [_sparsity(stage, seen) for stage, seen in epochs.items() if any(epoch.gauge for epoch in seen)],
        "proofs": [
            (stage.result.id, stage.proof, tables.proof_rows(stage.proof), stage.pruning)
            for stage in run.stages
            if stage.proof
        ],
        "quantized": [
            (stage.result.id, stage.noise, figures.noise_of_layers(stage.noise)) for stage in run.stages if stage.noise
        ],
        "mean_curve": figures.mean_precision_recall(evaluated),
        "class_curves": figures.class_precision_recall(evaluated, _frequent_classes(last)),
        "classes": tables.class_rows(next(iter(evaluated.values())) if len(evaluated) > 1 else None, last)
        if last
        else [],
        "sources": tables.source_rows(next(iter(evaluated.values())) if len(evaluated) > 1 else None, last)
        if last
        else [],
        "evaluated": list(evaluated),
        "last_metrics": last,
        "samples": _samples(run),
    }


def _subject(run: Run) -> str:
    """What was trained on what: "yolov3-tiny on bccd, 320×256 px"; empty without a recipe."""
    model, dataset, image_size = (run.recipe.get(key) for key in ("model", "dataset", "image_size"))
    if isinstance(dataset, dict):
        dataset = " + ".join(str(card) for card in dataset.get("mix") or ())
    if isinstance(model, dict):
        name = model.get("zoo") or model.get("cfg") or model.get("bundle") or ""
        width = model.get("width", 1)
        model = PurePosixPath(without_credentials(str(name))).name + (f" × {width}" if width != 1 else "")
    if isinstance(image_size, list):
        image_size = "×".join(str(side) for side in image_size)
    parts = [str(model or ""), f"on {dataset}" if dataset else "", f"at {image_size} px" if image_size else ""]
    return " ".join(part for part in parts if part)


def _in_stage_order(run: Run) -> dict[str, list[Epoch]]:
    """Epochs by stage: finished stages in order, then the one under way; what the recipe no longer has is left out."""
    finished = [stage.result.id for stage in run.stages]
    planned = run.planned or list(run.epochs)
    order = dict.fromkeys([*finished, *planned])
    return {stage: run.epochs[stage] for stage in order if stage in run.epochs}


def _first_and_last(evaluations: Mapping[str, Metrics]) -> dict[str, Metrics]:
    items = list(evaluations.items())
    return dict(items[:1] + items[1:][-1:])


def _frequent_classes(metrics: Metrics | None) -> list[str]:
    if metrics is None:
        return []
    by_frequency = sorted(metrics.per_class, key=lambda name: -metrics.per_class[name].objects)
    return by_frequency[:MOST_CLASS_CURVES]


def _sparsity(stage: str, epochs: list[Epoch]) -> dict[str, Any]:
    return {
        "stage": stage,
        "gauge": [epoch.gauge for epoch in epochs if epoch.gauge][-1],
        "histograms": figures.gamma_histograms(epochs),
        "shares": figures.sparsity_shares(epochs),
    }


def _samples(run: Run) -> list[list[Picture]]:
    """Images with detections; where the first and the last model drew the same image, side by side."""
    drawn = [stage for stage in run.stages if stage.samples]
    if not drawn:
        return []
    first, last = drawn[0], drawn[-1]
    if first is last:
        return [[_picture(last, name)] for name in list(last.samples)[:MOST_SAMPLES]]
    shared = [name for name in last.samples if name in first.samples]
    return [[_picture(first, name), _picture(last, name)] for name in shared[:MOST_SAMPLES]]


def _picture(stage: Stage, name: str) -> Picture:
    encoded = base64.b64encode(stage.samples[name].read_bytes()).decode()
    return Picture(stage.result.id, name, source=f"data:image/jpeg;base64,{encoded}")
