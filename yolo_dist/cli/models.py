"""Commands about one model: train, prune, evaluate, detect."""

from pathlib import Path
from typing import Annotated

import typer

from yolo_dist.bundle import require_classes
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
from yolo_dist.compress.pruning import PruneConfig
from yolo_dist.config import validate
from yolo_dist.data.card import find_card
from yolo_dist.data.shards import ShardSet
from yolo_dist.evaluate.detect import DetectConfig
from yolo_dist.evaluate.detect import detect as detect_objects
from yolo_dist.evaluate.evaluator import EvaluationConfig
from yolo_dist.evaluate.evaluator import evaluate as evaluate_network
from yolo_dist.evaluate.metrics import Metrics
from yolo_dist.pipeline import run
from yolo_dist.recipe import make_recipe
from yolo_dist.stages import prune_with_shards, save_pruned
from yolo_dist.storage import location


def train(
    shards: Shards,
    dataset: Annotated[str, typer.Option("--dataset", help="Card: a name or a YAML file.")],
    out: Annotated[Path, typer.Option("--out", help="Folder of the run; the bundle goes to stages/train in it.")],
    model: Annotated[str, typer.Option("--model", help="Zoo name, .cfg or folder of a bundle.")] = "yolov3-tiny",
    weights: Weights = None,
    size: Annotated[str, typer.Option("--image-size", help="Input in pixels: 416 or 320x256.")] = "416",
    overrides: Overrides = None,
    as_json: Json = False,
) -> None:
    """Train one stage.

    Example: yolo-dist train --shards data/bccd --dataset bccd --out runs/first train.epochs=20 cluster.workers=2
    """
    out = out.absolute()
    values = {
        "name": out.name,
        "storage": str(out.parent),
        "dataset": dataset,
        "shards": shards,
        "model": {"cfg": model, "weights": weights} if weights else model,
        "image_size": image_size(size, (416, 416)),
        "stages": [{"id": "train", "kind": "train"}],
    }
    show.results(run(make_recipe(values, "options", overrides)), as_json)


def prune(
    shards: Shards,
    out: Annotated[str, typer.Option("--out", help="Folder or URL of the pruned bundle.")],
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
    as_json: Json = False,
) -> None:
    """Cut channels and prove the result on images of the validation split.

    Example: yolo-dist prune --model runs/bccd/stages/sparse --shards data/bccd --percent 0.7 --out runs/pruned
    """
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
    bundle = load_model(model, cfg, weights, dataset)
    splits = {split: ShardSet.open(location(shards) / split) for split in ("train", "val")}
    require_classes(bundle, splits["val"].classes, shards)
    pruned = prune_with_shards(bundle, config, splits["val"], splits["train"])
    save_pruned(bundle, pruned, config, location(out))
    if as_json:
        show.as_json(pruned.proof.as_json())
        return
    proof = pruned.proof
    show.table(
        ("", "before", "after", "left"),
        [
            (name, f"{change.before:,.{places}f}", f"{change.after:,.{places}f}", f"{change.after / change.before:.1%}")
            for name, change, places in (
                ("parameters", proof.parameters, 0),
                ("MACs", proof.macs, 0),
                ("bytes of weights", proof.weight_bytes, 0),
                ("latency ms", proof.latency_ms, 2),
            )
        ],
    )
    typer.echo(
        f"masked and compact network differ by {proof.max_abs_difference:.1e} on {proof.images} images "
        f"(at most {proof.tolerance:g} is allowed); saved to {out}"
    )


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
    config = validate(EvaluationConfig, {"confidence": confidence}, "options")
    bundle = load_model(model, cfg, weights, dataset)
    images = ShardSet.open(location(shards) / split)
    require_classes(bundle, images.classes, shards)
    limit = find_card(dataset or images.manifest.dataset).max_detections
    evaluation = evaluate_network(
        bundle.network, images, image_size(size, bundle.image_size), config, max_detections=limit
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
    bundle = load_model(model, cfg, weights, dataset)
    config = validate(
        DetectConfig,
        {
            "confidence": confidence,
            "max_frames": max_frames,
            "image_size": image_size(size, bundle.image_size),
        },
        "options",
    )
    with show.progress("detect") as progress:
        report = detect_objects(bundle.network, bundle.classes, sources, out, config, progress)
    if as_json:
        show.as_json([frame.as_json(bundle.classes) for frame in report.frames])
        return
    for reason in report.skipped:
        typer.echo(f"skipped: {reason}", err=True)
    found = sum(len(frame.detections) for frame in report.frames)
    typer.echo(
        f"{found} objects on {len(report.frames)} images and frames; copies and {report.json_file.name} in {out}"
    )


def _show_metrics(metrics: Metrics, as_json: bool) -> None:
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
