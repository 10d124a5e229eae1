"""The command `sensitivity`.

What takes seconds to import is imported where it is used, so that help is quick.
"""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from yolo_dist.cli import show
from yolo_dist.cli.options import (
    CfgFile,
    Dataset,
    Json,
    Model,
    Shards,
    TrainSplit,
    ValidationSplit,
    Weights,
    Workers,
    detections_that_count,
    load_model,
)
from yolo_dist.config import validate
from yolo_dist.data.shards import open_split
from yolo_dist.errors import ConfigError
from yolo_dist.storage import location, publish

if TYPE_CHECKING:
    from yolo_dist.compress.sensitivity.bits import BitsConfig
    from yolo_dist.compress.sensitivity.cuts import CutsConfig
    from yolo_dist.compress.sensitivity.record import Curve, Question, Sensitivity

MOST_SENSITIVE = 10
"""Layers that are listed on a terminal."""


def sensitivity(
    shards: Shards,
    out: Annotated[str, typer.Option("--out", help="Folder or URL for sensitivity.json and sensitivity.html.")],
    model: Model = None,
    cfg: CfgFile = None,
    weights: Weights = None,
    dataset: Dataset = None,
    split: ValidationSplit = "val",
    train_split: TrainSplit = "train",
    percents: Annotated[
        str | None,
        typer.Option("--percents", help="Shares to cut, 0.1,0.3,0.5,0.7,0.9 by default.", show_default=False),
    ] = None,
    scope: Annotated[
        str | None, typer.Option("--scope", help="classic (by default) or full.", show_default=False)
    ] = None,
    reestimate: Annotated[
        int | None, typer.Option("--reestimate-images", help="Training images for statistics.", show_default=False)
    ] = None,
    quantization: Annotated[
        bool, typer.Option("--quantization", help="Take bits from layers in place of channels.")
    ] = False,
    bits: Annotated[
        str | None, typer.Option("--bits", help="With --quantization: 8,4,2 by default.", show_default=False)
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set", help="With --quantization: per_channel=true and the like, as in a recipe.", show_default=False
        ),
    ] = None,
    calibration: Annotated[
        int | None,
        typer.Option(
            "--calibration-images", help="With --quantization: for ranges, 32 by default.", show_default=False
        ),
    ] = None,
    images: Annotated[int, typer.Option("--images", help="Validation images to measure on.")] = 128,
    workers: Workers = 0,
    as_json: Json = False,
) -> None:
    """Measure what each layer can lose before any fine-tuning; interrupted, the same command goes on where it stopped.

    Example: yolo-dist sensitivity --model runs/bccd/stages/sparse --shards data/bccd --out runs/sensitivity --workers 2
    Example: yolo-dist sensitivity --quantization --model runs/bccd/stages/base --shards data/bccd --out runs/bits
    """
    from yolo_dist.bundle import require_classes
    from yolo_dist.compress.pruning.trials import TrialSetup
    from yolo_dist.compress.sensitivity.record import measure
    from yolo_dist.report.sensitivity import render_sensitivity

    config = _configuration(
        quantization,
        {"percents": percents and percents.split(","), "scope": scope, "reestimate_images": reestimate},
        {"bits": bits and bits.split(","), "quantization": _pairs(settings), "calibration_images": calibration},
        images,
    )
    validation = open_split(shards, split)
    bundle = load_model(model, cfg, weights, dataset, validation.classes)
    require_classes(bundle, validation.classes, shards)
    setup = TrialSetup(
        bundle.network,
        bundle.image_size,
        validation.first(config.images),
        open_split(shards, train_split) if config.needs_training_images else None,
        reestimate_images=reestimate or 0,
        max_detections=detections_that_count(dataset, validation.manifest.dataset),
    )
    question: Question[Any] = config.question(bundle.network)
    folder = location(out)
    with show.progress("sensitivity") as progress:
        found = measure(setup, question, folder / "sensitivity.json", workers, progress, "--workers")
    publish(folder / "sensitivity.html", render_sensitivity(found, str(model or cfg)))
    if as_json:
        show.as_json(found.model_dump(mode="json"))
        return
    _show_sensitivity(found)
    typer.echo(f"saved to {out}")


def _configuration(
    quantization: bool, of_cuts: dict[str, Any], of_bits: dict[str, Any], images: int
) -> "CutsConfig | BitsConfig":
    from yolo_dist.compress.sensitivity.bits import BitsConfig
    from yolo_dist.compress.sensitivity.cuts import CutsConfig

    asked, foreign = (of_bits, of_cuts) if quantization else (of_cuts, of_bits)
    if others := [name for name, value in foreign.items() if value is not None]:
        raise ConfigError(
            "options", [f"{name} goes {'without' if quantization else 'with'} --quantization" for name in others]
        )
    values = {name: value for name, value in asked.items() if value is not None} | {"images": images}
    return validate(BitsConfig, values, "options") if quantization else validate(CutsConfig, values, "options")


def _pairs(settings: list[str] | None) -> dict[str, str] | None:
    """What --set says; the configuration turns texts into numbers and truths.

    Raises:
        ConfigError: one has no equals sign.
    """
    if not settings:
        return None
    if wrong := [item for item in settings if "=" not in item]:
        raise ConfigError("--set", [f"{item}: reads key=value, such as per_channel=true" for item in wrong])
    return {key: value for key, _, value in (item.partition("=") for item in settings)}


def _show_sensitivity(found: "Sensitivity") -> None:
    def row(curve: "Curve") -> tuple[str, ...]:
        cells = (show.decimal(trial.outcome.map50) if trial.outcome else "–" for trial in curve.trials)
        return (curve.name, f"{curve.channels:,}", *cells)

    curves = found.by_damage()
    amounts = [f"{trial.amount:g}" for trial in found.together.trials]
    rows = [*map(row, curves[:MOST_SENSITIVE]), row(found.together)]
    show.table(("layer", "channels", *amounts), rows, f"mAP50 by {found.unit}")
    before = show.decimal(found.unchanged.map50 if found.unchanged else None)
    typer.echo(f"{'float' if found.unit == 'bits' else 'uncut'} mAP50 is {before}, on {found.images} validation images")
    if len(curves) > MOST_SENSITIVE:
        typer.echo(f"these are the most sensitive of {len(curves)} layers; sensitivity.json has all")
