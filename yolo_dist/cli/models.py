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
    image_size,
    load_model,
)
from yolo_dist.config import validate
from yolo_dist.data.card import card_names, find_card
from yolo_dist.data.shards import open_split
from yolo_dist.errors import ConfigError
from yolo_dist.storage import location

if TYPE_CHECKING:
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
    out: Annotated[str, typer.Option("--out", help="Folder or URL of the pruned bundle.")],
    model: Model = None,
    cfg: CfgFile = None,
    weights: Weights = None,
    dataset: Dataset = None,
    method: Annotated[str, typer.Option("--method", help="Pruning method.")] = "normal",
    importance: Annotated[
        str, typer.Option("--importance", help="What a channel is worth: gamma, gamma-beta, l1, l2, taylor or random.")
    ] = "gamma",
    percent: Annotated[float, typer.Option("--percent", help="Share of the candidates' channels to cut.")] = 0.5,
    scope: Annotated[str, typer.Option("--scope", help="classic or full.")] = "classic",
    reestimate: Annotated[int, typer.Option("--reestimate-images", help="Training images for statistics.")] = 0,
    compensate: Annotated[bool, typer.Option(help="Mend what cut channels still emitted.")] = True,
    seed: Annotated[int, typer.Option("--seed", help="Of importance random.")] = 0,
    force: Annotated[bool, typer.Option("--force", help="Cut although the network is not sparse enough.")] = False,
    as_json: Json = False,
) -> None:
    """Cut channels and prove the result on images of the validation split.

    Example: yolo-dist prune --model runs/bccd/stages/sparse --shards data/bccd --percent 0.7 --out runs/pruned
    """
    from yolo_dist.bundle import require_classes
    from yolo_dist.compress.pruning import PruneConfig
    from yolo_dist.stages import prune_with_shards, save_pruned

    config = validate(
        PruneConfig,
        {
            "method": method,
            "importance": importance,
            "percent": percent,
            "scope": scope,
            "reestimate_images": reestimate,
            "compensate": compensate,
            "seed": seed,
            "force": force,
        },
        "options",
    )
    validation = open_split(shards, "val")
    training = open_split(shards, "train") if config.needs_training_images else validation
    bundle = load_model(model, cfg, weights, dataset, validation.classes)
    require_classes(bundle, validation.classes, shards)
    pruned = prune_with_shards(bundle, config, validation, training)
    save_pruned(bundle, pruned, config, location(out))
    if as_json:
        show.as_json(pruned.proof.as_json())
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
