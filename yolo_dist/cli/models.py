"""Commands about one model: train, prune, evaluate, detect.

What takes seconds to import is imported where it is used, so that help is quick.
"""

from collections.abc import Sequence
from dataclasses import replace
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
from yolo_dist.storage import location, require_ours

if TYPE_CHECKING:
    from yolo_dist.compress.pruning.prediction import Prediction
    from yolo_dist.compress.pruning.proof import Proof
    from yolo_dist.evaluate.metrics import Metrics

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
    percent: Annotated[float, typer.Option("--percent", help="Share of the candidates to cut.")] = 0.5,
    scope: Annotated[str, typer.Option("--scope", help="classic or full.")] = "classic",
    shortcuts: Annotated[
        int | None, typer.Option("--shortcuts", help="Residual blocks that a layer method removes.", show_default=False)
    ] = None,
    round_to: Annotated[
        int | None, typer.Option("--round-to", help="Round channels up to a multiple.", show_default=False)
    ] = None,
    target_parameters: Annotated[
        float | None,
        typer.Option("--target-parameters", help="Parameters that may stay; up to 1 a share.", show_default=False),
    ] = None,
    target_macs: Annotated[
        float | None, typer.Option("--target-macs", help="MACs that may stay; up to 1 a share.", show_default=False)
    ] = None,
    target_latency: Annotated[
        float | None, typer.Option("--target-latency-ms", help="Milliseconds an image.", show_default=False)
    ] = None,
    max_map_drop: Annotated[
        float | None, typer.Option("--max-map-drop", help="Loss of mAP50 that is allowed.", show_default=False)
    ] = None,
    candidates: Annotated[
        int | None, typer.Option("--candidates", help="Shapes that eagle-eye draws.", show_default=False)
    ] = None,
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
    from yolo_dist.compress.pruning import PruneConfig, PrunePlan
    from yolo_dist.compress.pruning.prediction import describe_damage, predict
    from yolo_dist.compress.pruning.prune import choose_plan
    from yolo_dist.compress.pruning.trials import TrialSetup, accuracy_of
    from yolo_dist.stages import prune_with_shards, save_pruned

    if out is None and not dry_run:
        raise ConfigError("options", ["give --out FOLDER for the pruned bundle, or --dry-run to write nothing"])
    if dry_run and not predict_images:
        raise ConfigError("options", ["--dry-run has nothing to do with --predict-images 0"])
    values = {
        "method": method,
        "percent": percent,
        "scope": scope,
        "shortcuts": shortcuts,
        "round_to": round_to,
        "target_parameters": target_parameters,
        "target_macs": target_macs,
        "target_latency_ms": target_latency,
        "max_map_drop": max_map_drop,
        "candidates": candidates,
        "reestimate_images": reestimate,
        "compensate": compensate,
        "force": force,
    }
    config = validate(PruneConfig, {key: value for key, value in values.items() if value is not None}, "options")
    validation = open_split(shards, "val")
    statistics = open_split(shards, "train") if config.reestimate_images else validation
    bundle = load_model(model, cfg, weights, dataset, validation.classes)
    require_classes(bundle, validation.classes, shards)
    trials = TrialSetup(
        bundle,
        validation,
        statistics,
        reestimate_images=config.reestimate_images,
        compensate=config.compensate,
        max_detections=_detections_that_count(dataset, validation.manifest.dataset),
    )

    setup = replace(trials, validation=validation.first(predict_images))

    def accuracy(plans: Sequence[PrunePlan]) -> Sequence[float]:
        with show.progress("evaluate") as progress:
            return accuracy_of(trials, workers, progress, "--workers")(plans)

    def predictions_of(plan: PrunePlan) -> "list[Prediction]":
        with show.progress("predict") as progress:
            return predict(setup, config, plan, workers, progress, "--workers")

    def damage(plan: PrunePlan) -> str:
        return describe_damage(predictions_of(plan), plan, len(setup.validation))

    if out is None or dry_run:
        plan = choose_plan(bundle.network, config, bundle.image_size, accuracy)
        _show_predictions(predictions_of(plan), len(setup.validation), as_json)
        return
    if not is_remote(target := location(out)):
        require_ours(Path(target.path), RECORD_FILE)  # before minutes of work, and again when it is written
    pruned = prune_with_shards(bundle, config, validation, statistics, accuracy, damage if predict_images else None)
    predictions = predictions_of(pruned.plan) if predict_images else []
    if predictions and not as_json:
        _show_predictions(predictions, len(setup.validation))
    save_pruned(bundle, pruned, config, target)
    if as_json:
        show.as_json(pruned.proof.as_json() | {"prediction": [one.as_json() for one in predictions]})
        return
    _show_proof(pruned.proof)
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
    show.table(("percent", "parameters", "mAP50", "mAP", ""), rows, title)


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
