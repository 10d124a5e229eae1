"""The command `sensitivity`.

What takes seconds to import is imported where it is used, so that help is quick.
"""

from typing import TYPE_CHECKING, Annotated

import typer

from yolo_dist.cli import show
from yolo_dist.cli.options import (
    CfgFile,
    Dataset,
    Json,
    Model,
    Shards,
    Weights,
    Workers,
    detections_that_count,
    load_model,
)
from yolo_dist.config import validate
from yolo_dist.data.shards import open_split
from yolo_dist.storage import location, publish

if TYPE_CHECKING:
    from yolo_dist.compress.pruning.sensitivity_record import Curve, Sensitivity

MOST_SENSITIVE = 10
"""Layers that are listed on a terminal."""


def sensitivity(
    shards: Shards,
    out: Annotated[str, typer.Option("--out", help="Folder or URL for sensitivity.json and sensitivity.html.")],
    model: Model = None,
    cfg: CfgFile = None,
    weights: Weights = None,
    dataset: Dataset = None,
    percents: Annotated[str, typer.Option("--percents", help="Shares to cut.")] = "0.1,0.3,0.5,0.7,0.9",
    scope: Annotated[str, typer.Option("--scope", help="classic or full.")] = "classic",
    images: Annotated[int, typer.Option("--images", help="Validation images to measure on.")] = 128,
    reestimate: Annotated[int, typer.Option("--reestimate-images", help="Training images for statistics.")] = 0,
    workers: Workers = 0,
    as_json: Json = False,
) -> None:
    """Measure what each layer can lose before any fine-tuning; interrupted, the same command goes on where it stopped.

    Example: yolo-dist sensitivity --model runs/bccd/stages/sparse --shards data/bccd --out runs/sensitivity --workers 2
    """
    from yolo_dist.bundle import require_classes
    from yolo_dist.compress.pruning.sensitivity import SensitivityConfig
    from yolo_dist.compress.pruning.sensitivity_record import measure_sensitivity
    from yolo_dist.compress.pruning.trials import TrialSetup
    from yolo_dist.report.sensitivity import render_sensitivity

    config = validate(
        SensitivityConfig,
        {"percents": percents.split(","), "scope": scope, "images": images, "reestimate_images": reestimate},
        "options",
    )
    validation = open_split(shards, "val")
    bundle = load_model(model, cfg, weights, dataset, validation.classes)
    require_classes(bundle, validation.classes, shards)
    setup = TrialSetup(
        bundle,
        validation.first(config.images),
        open_split(shards, "train") if config.reestimate_images else None,
        reestimate_images=config.reestimate_images,
        max_detections=detections_that_count(dataset, validation.manifest.dataset),
    )
    folder = location(out)
    with show.progress("sensitivity") as progress:
        found = measure_sensitivity(setup, config, folder / "sensitivity.json", workers, progress, "--workers")
    publish(folder / "sensitivity.html", render_sensitivity(found, str(model or cfg)))
    if as_json:
        show.as_json(found.model_dump(mode="json"))
        return
    _show_sensitivity(found)
    typer.echo(f"saved to {out}")


def _show_sensitivity(found: "Sensitivity") -> None:
    def row(curve: "Curve") -> tuple[str, ...]:
        cells = (show.decimal(trial.outcome.map50) if trial.outcome else "–" for trial in curve.trials)
        return (curve.name, f"{curve.channels:,}", *cells)

    curves = found.by_damage()
    percents = [f"{trial.percent:g}" for trial in found.together.trials]
    rows = [*map(row, curves[:MOST_SENSITIVE]), row(found.together)]
    show.table(("layer", "channels", *percents), rows, "mAP50 by percent")
    before = show.decimal(found.unpruned.map50 if found.unpruned else None)
    typer.echo(f"uncut mAP50 is {before}, on {found.images} validation images")
    if len(curves) > MOST_SENSITIVE:
        typer.echo(f"these are the most sensitive of {len(curves)} layers; sensitivity.json has all")
