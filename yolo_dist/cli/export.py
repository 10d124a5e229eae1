"""The command `export`: a bundle as a file for other runtimes.

What takes seconds to import is imported where it is used, so that help is quick.
"""

from typing import Annotated, Any

import typer

from yolo_dist.cli import show
from yolo_dist.cli.options import CfgFile, Dataset, Json, Model, Size, Weights, load_model
from yolo_dist.config import validate


def export(
    out: Annotated[str, typer.Option("--out", help="Path or URL of the file.")],
    model: Model = None,
    cfg: CfgFile = None,
    weights: Weights = None,
    dataset: Dataset = None,
    size: Size = None,
    format_: Annotated[
        str, typer.Option("--format", help="onnx (float32), or onnx-int8 of a quantised bundle.")
    ] = "onnx",
    output: Annotated[str, typer.Option("--output", help="boxes, raw (the heads' maps) or detections.")] = "boxes",
    opset: Annotated[int, typer.Option("--opset", help="Version of ONNX's operators.")] = 21,
    confidence: Annotated[float, typer.Option("--confidence", help="Least score of a detection.")] = 0.25,
    as_json: Json = False,
) -> None:
    """Write a bundle as an ONNX file, and measure it in ONNX Runtime.

    Example: yolo-dist export --model runs/bccd/stages/tuned --format onnx --out tuned.onnx
    """
    from yolo_dist.export.onnx import ExportConfig
    from yolo_dist.export.write import export_file

    values: dict[str, Any] = {"format": format_, "output": output, "opset": opset, "confidence": confidence}
    config = validate(ExportConfig, values, "options")
    record = export_file(load_model(model, cfg, weights, dataset, size=size), config, out)
    if as_json:
        show.as_json(record.model_dump(mode="json"))
        return
    times = ", ".join(f"{ms:.1f} ms with {threads}" for threads, ms in record.latency_ms.items())
    typer.echo(f"{out}: {record.bytes / 1024:,.0f} KiB; an image takes {times} threads in ONNX Runtime")
