"""Commands about one model: train, evaluate, detect.

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
    detections_that_count,
    image_size,
    load_model,
)
from yolo_dist.config import validate
from yolo_dist.data.shards import open_split
from yolo_dist.errors import ConfigError
from yolo_dist.storage import location

if TYPE_CHECKING:
    from yolo_dist.bundle import Bundle
    from yolo_dist.darknet.network import Network
    from yolo_dist.evaluate.inference import Predict
    from yolo_dist.evaluate.metrics import Metrics
    from yolo_dist.export.runtime import ExportedModel


def train(
    shards: Shards,
    dataset: Annotated[str, typer.Option("--dataset", help="Card: a name or a YAML file.")],
    out: Annotated[str, typer.Option("--out", help="Folder of the run; the bundle goes to stages/train in it.")],
    model: Annotated[
        str | None, typer.Option("--model", help="Zoo name or bundle; yolov3-tiny by default.", show_default=False)
    ] = None,
    cfg: CfgFile = None,
    weights: Weights = None,
    warm_start: Annotated[
        str | None,
        typer.Option(
            "--warm-start", help="Bundle or weights file of which a new network takes what fits.", show_default=False
        ),
    ] = None,
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
        "model": _start(model, cfg, weights, warm_start),
        "image_size": image_size(size),
        "stages": [{"id": "train", "kind": "train"}],
    }
    with show.progress_apart(as_json):
        results = run(make_recipe(values, "options", overrides), "options")
    show.results(results, as_json)


def evaluate(
    shards: Shards,
    model: Model = None,
    cfg: CfgFile = None,
    weights: Weights = None,
    dataset: Dataset = None,
    split: Split = "val",
    size: Size = None,
    confidence: Annotated[float, typer.Option(help="Least score that counts.")] = 0.001,
    augment: Annotated[
        bool, typer.Option("--augment", help="Look at each image in four views, mirrored and in other sizes.")
    ] = False,
    runtime: Annotated[
        str, typer.Option("--runtime", help="torch, or onnxruntime for a file that `export` wrote.")
    ] = "torch",
    as_json: Json = False,
) -> None:
    """Measure accuracy on a converted split by the COCO protocol.

    Example: yolo-dist evaluate --model runs/bccd/stages/tuned --shards data/bccd
    """
    from yolo_dist.bundle import require_classes
    from yolo_dist.evaluate import evaluator

    config = validate(evaluator.EvaluationConfig, {"confidence": confidence, "augment": augment}, "options")
    images = open_split(shards, split)
    found: Bundle | ExportedModel
    network: Network | Predict
    if runtime == "onnxruntime":
        found = network = _exported(model, cfg, weights, size)
    elif runtime == "torch":
        found = load_model(model, cfg, weights, dataset, images.classes, size)
        network = found.network
    else:
        raise ConfigError("options", [f"--runtime {runtime} is not there; take torch or onnxruntime"])
    require_classes(found, images.classes, shards)
    evaluation = evaluator.evaluate(
        network,
        images,
        found.image_size,
        config,
        max_detections=detections_that_count(dataset, images.manifest.dataset),
        tell=lambda line: typer.echo(line, err=True),
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


def _exported(model: str | None, cfg: str | None, weights: str | None, size: str | None) -> "ExportedModel":
    from yolo_dist.export.runtime import open_exported

    if model is None or cfg is not None or weights is not None or size is not None:
        raise ConfigError("options", ["--runtime onnxruntime takes --model FILE.onnx, whose input size is its own"])
    exported = open_exported(model)
    exported.require_boxes(model)
    return exported


def _start(model: str | None, cfg: str | None, weights: str | None, warm_start: str | None) -> Any:
    """The `model` of a recipe."""
    if cfg is None and weights is None:
        name = model or "yolov3-tiny"
        return name if warm_start is None else {"zoo": name, "warm_start": warm_start}
    if model is not None:
        raise ConfigError("options", ["give either --model, or --cfg FILE with --weights FILE"])
    return {"cfg": cfg, "weights": weights, "warm_start": warm_start}


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
