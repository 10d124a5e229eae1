"""Commands about one model: train, prune, evaluate, detect.

What takes seconds to import is imported where it is used, so that help is quick.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from yolo_dist.cli import show
from yolo_dist.cli.options import (
    CfgFile,
    Dataset,
    Json,
    Model,
    Overrides,
    Shards,
    Size,
    Split,
    Weights,
    Workers,
    image_size,
    load_model,
)
from yolo_dist.config import validate
from yolo_dist.data.card import card_names, find_card
from yolo_dist.data.shards import open_split
from yolo_dist.errors import ConfigError
from yolo_dist.object_store import is_remote
from yolo_dist.storage import location, publish, require_ours

if TYPE_CHECKING:
    from yolo_dist.compress.pruning.prediction import Prediction
    from yolo_dist.compress.pruning.proof import Proof
    from yolo_dist.compress.pruning.sensitivity_record import Curve, Sensitivity
    from yolo_dist.evaluate.metrics import Metrics

MOST_SENSITIVE = 10
"""Layers that are listed on a terminal."""
COCO_DETECTIONS = 100
"""Detections an image that count for a dataset without a card."""


def train(
    shards: Shards,
    dataset: Annotated[str, typer.Option("--dataset", help="Card: a name or a YAML file.")],
    out: Annotated[str, typer.Option("--out", help="Folder of the run; the bundle goes to stages/train in it.")],
    model: Annotated[
        str | None, typer.Option("--model", help="Zoo name or bundle; yolov3-tiny by default.", show_default=False)
    ] = None,
    cfg: CfgFile = None,
    weights: Weights = None,
    size: Annotated[str, typer.Option("--image-size", help="Input in pixels: 416 or 320x256.")] = "416",
    overrides: Overrides = None,
    as_json: Json = False,
) -> None:
    """Train one stage.

    Example: yolo-dist train --shards data/bccd --dataset bccd --out runs/first train.epochs=20 cluster.workers=2
    """
    from yolo_dist.pipeline import run
    from yolo_dist.recipe import make_recipe

    folder = location(out)
    values = {
        "name": folder.name,
        "storage": str(folder.parent),
        "dataset": dataset,
        "shards": shards,
        "model": _start(model, cfg, weights),
        "image_size": image_size(size),
        "stages": [{"id": "train", "kind": "train"}],
    }
    with show.progress_apart(as_json):
        results = run(make_recipe(values, "options", overrides), "options")
    show.results(results, as_json)


def prune(
    shards: Shards,
    out: Annotated[
        str | None, typer.Option("--out", help="Folder or URL of the pruned bundle.", show_default=False)
    ] = None,
    model: Model = None,
    cfg: CfgFile = None,
    weights: Weights = None,
    dataset: Dataset = None,
    method: Annotated[str, typer.Option("--method", help="Pruning method.")] = "normal",
    percent: Annotated[float, typer.Option("--percent", help="Share of the candidates' channels to cut.")] = 0.5,
    scope: Annotated[str, typer.Option("--scope", help="classic or full.")] = "classic",
    reestimate: Annotated[int, typer.Option("--reestimate-images", help="Training images for statistics.")] = 0,
    compensate: Annotated[bool, typer.Option(help="Mend what cut channels still emitted.")] = True,
    force: Annotated[bool, typer.Option("--force", help="Cut although the network is not sparse enough.")] = False,
    predict_images: Annotated[
        int, typer.Option("--predict-images", min=0, help="Validation images to predict the damage on; 0 does not.")
    ] = 128,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Predict the damage and write nothing.")] = False,
    workers: Workers = 0,
    as_json: Json = False,
) -> None:
    """Predict what a cut costs without fine-tuning, cut channels, and prove the result on validation images.

    Example: yolo-dist prune --model runs/bccd/stages/sparse --shards data/bccd --percent 0.7 --out runs/pruned
    """
    from yolo_dist.bundle import RECORD_FILE, require_classes
    from yolo_dist.compress.pruning import PruneConfig, PrunePlan, make_plan
    from yolo_dist.compress.pruning.prediction import describe_damage, predict
    from yolo_dist.compress.pruning.trials import TrialSetup
    from yolo_dist.stages import prune_with_shards, save_pruned

    if out is None and not dry_run:
        raise ConfigError("options", ["give --out FOLDER for the pruned bundle, or --dry-run to write nothing"])
    if dry_run and not predict_images:
        raise ConfigError("options", ["--dry-run has nothing to do with --predict-images 0"])
    config = validate(
        PruneConfig,
        {
            "method": method,
            "percent": percent,
            "scope": scope,
            "reestimate_images": reestimate,
            "compensate": compensate,
            "force": force,
        },
        "options",
    )
    validation = open_split(shards, "val")
    statistics = open_split(shards, "train") if config.reestimate_images else validation
    bundle = load_model(model, cfg, weights, dataset, validation.classes)
    require_classes(bundle, validation.classes, shards)
    setup = TrialSetup(
        bundle,
        validation.first(predict_images),
        statistics,
        reestimate_images=config.reestimate_images,
        compensate=config.compensate,
        max_detections=_detections_that_count(dataset, validation.manifest.dataset),
    )

    def predictions_of(plan: PrunePlan) -> "list[Prediction]":
        with show.progress("predict") as progress:
            return predict(setup, config, plan, workers, progress, "--workers")

    def damage(plan: PrunePlan) -> str:
        return describe_damage(predictions_of(plan), plan, len(setup.validation))

    if out is None or dry_run:
        _show_predictions(predictions_of(make_plan(bundle.network, config)), len(setup.validation), as_json)
        return
    if not is_remote(target := location(out)):
        require_ours(Path(target.path), RECORD_FILE)  # before minutes of work, and again when it is written
    pruned = prune_with_shards(bundle, config, validation, statistics, damage if predict_images else None)
    predictions = predictions_of(pruned.plan) if predict_images else []
    if predictions and not as_json:
        _show_predictions(predictions, len(setup.validation))
    save_pruned(bundle, pruned, config, target)
    if as_json:
        show.as_json(pruned.proof.as_json() | {"prediction": [one.as_json() for one in predictions]})
        return
    _show_proof(pruned.proof)
    typer.echo(f"saved to {out}")


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
        max_detections=_detections_that_count(dataset, validation.manifest.dataset),
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


def evaluate(
    shards: Shards,
    model: Model = None,
    cfg: CfgFile = None,
    weights: Weights = None,
    dataset: Dataset = None,
    split: Split = "val",
    size: Size = None,
    confidence: Annotated[float, typer.Option(help="Least score that counts.")] = 0.001,
    as_json: Json = False,
) -> None:
    """Measure accuracy on a converted split by the COCO protocol.

    Example: yolo-dist evaluate --model runs/bccd/stages/tuned --shards data/bccd
    """
    from yolo_dist.bundle import require_classes
    from yolo_dist.evaluate import evaluator

    config = validate(evaluator.EvaluationConfig, {"confidence": confidence}, "options")
    images = open_split(shards, split)
    bundle = load_model(model, cfg, weights, dataset, images.classes, size)
    require_classes(bundle, images.classes, shards)
    evaluation = evaluator.evaluate(
        bundle.network,
        images,
        bundle.image_size,
        config,
        max_detections=_detections_that_count(dataset, images.manifest.dataset),
    )
    assert evaluation is not None
    _show_metrics(evaluation.metrics, as_json)


def detect(
    sources: Annotated[list[Path], typer.Argument(help="Images, folders and videos.")],
    out: Annotated[Path, typer.Option("--out", help="Folder for annotated copies and detections.json.")],
    model: Model = None,
    cfg: CfgFile = None,
    weights: Weights = None,
    dataset: Dataset = None,
    size: Size = None,
    confidence: Annotated[float, typer.Option(help="Least score of a detection.")] = 0.25,
    max_frames: Annotated[int | None, typer.Option(help="Frames of each video to look at.", show_default=False)] = None,
    as_json: Json = False,
) -> None:
    """Find objects in images, folders and videos.

    Example: yolo-dist detect photos/ street.mp4 --model runs/bccd/stages/tuned --out found/
    """
    from yolo_dist.evaluate import detect as finder

    bundle = load_model(model, cfg, weights, dataset, size=size)
    config = validate(
        finder.DetectConfig,
        {
            "confidence": confidence,
            "max_frames": max_frames,
            "image_size": bundle.image_size,
        },
        "options",
    )
    with show.progress("detect") as progress:
        report = finder.detect(bundle.network, bundle.classes, sources, out, config, progress)
    for reason in report.skipped:
        typer.echo(f"skipped: {reason}", err=True)
    if as_json:
        show.as_json([frame.as_json(bundle.classes) for frame in report.frames])
        return
    found = sum(len(frame.detections) for frame in report.frames)
    typer.echo(
        f"{found} objects on {len(report.frames)} images and frames; copies and {report.json_file.name} in {out}"
    )


def _start(model: str | None, cfg: str | None, weights: str | None) -> Any:
    """The `model` of a recipe."""
    if cfg is None and weights is None:
        return model or "yolov3-tiny"
    if model is not None:
        raise ConfigError("options", ["give either --model, or --cfg FILE with --weights FILE"])
    return {"cfg": cfg, "weights": weights}


def _detections_that_count(dataset: str | None, converted_as: str) -> int:
    """A card's number; the COCO protocol's for a dataset whose card is not at hand."""
    if dataset is None and converted_as not in card_names():
        return COCO_DETECTIONS
    return find_card(dataset or converted_as).max_detections


def _show_predictions(predictions: "list[Prediction]", images: int, as_json: bool = False) -> None:
    if as_json:
        show.as_json({"prediction": [one.as_json() for one in predictions]})
        return
    rows = []
    for one in predictions:
        found = one.outcome
        numbers = (
            ("–",) * 3 if found is None else (f"{found.parameters:,}", *map(show.decimal, (found.map50, found.map)))
        )
        rows.append((f"{one.percent:g}", *numbers, one.remark))
    title = f"Without fine-tuning, on {images} validation images"
    show.table(("percent", "parameters", "mAP50", "mAP"), rows, title)
    for remark in (one.remark for one in predictions if one.remark):
        typer.echo(remark)


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


def _show_proof(proof: "Proof") -> None:
    changes = (
        ("parameters", proof.parameters, 0),
        ("MACs", proof.macs, 0),
        ("bytes of weights", proof.weight_bytes, 0),
        ("latency ms", proof.latency_ms, 2),
    )
    show.table(
        ("", "before", "after", "left"),
        [
            (name, f"{change.before:,.{places}f}", f"{change.after:,.{places}f}", f"{change.after / change.before:.1%}")
            for name, change, places in changes
        ],
    )
    typer.echo(
        f"masked and compact network differ by {proof.max_abs_difference:.1e} on {proof.images} images "
        f"(at most {proof.tolerance:g} is allowed)"
    )


def _show_metrics(metrics: "Metrics", as_json: bool) -> None:
    if as_json:
        show.as_json(metrics.model_dump(mode="json"))
        return
    objects = sum(one.objects for one in metrics.per_class.values())
    rows = [(name, one.objects, one.map50, one.map) for name, one in metrics.per_class.items()]
    rows.append(("all", objects, metrics.map50, metrics.map))
    show.table(
        ("class", "objects", "mAP50", "mAP"),
        [(name, str(count), show.decimal(map50), show.decimal(mean)) for name, count, map50, mean in rows],
    )
    typer.echo(
        f"precision {show.decimal(metrics.precision)}, recall {show.decimal(metrics.recall)}, "
        f"F1 {show.decimal(metrics.f1)} at confidence {show.decimal(metrics.confidence)}"
    )
