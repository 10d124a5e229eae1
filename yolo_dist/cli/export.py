"""The command `export`: a bundle as a file for other runtimes.

What takes seconds to import is imported where it is used, so that help is quick.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from yolo_dist.cli import show
from yolo_dist.cli.options import CfgFile, Dataset, Json, Model, Size, Weights, load_model
from yolo_dist.config import validate
from yolo_dist.errors import ConfigError, NotExportable

if TYPE_CHECKING:
    from yolo_dist.bundle import Bundle

OPSET = 21
FORMATS = ("onnx", "onnx-int8", "fpga")


def export(
    out: Annotated[str, typer.Option("--out", help="Path or URL of the file; a local folder for fpga.")],
    model: Model = None,
    cfg: CfgFile = None,
    weights: Weights = None,
    dataset: Dataset = None,
    size: Size = None,
    format_: Annotated[
        str, typer.Option("--format", help="onnx (float32); of a quantised bundle onnx-int8 or fpga.")
    ] = "onnx",
    output: Annotated[str, typer.Option("--output", help="boxes, raw (the heads' maps) or detections.")] = "boxes",
    opset: Annotated[int, typer.Option("--opset", help="Version of ONNX's operators.")] = OPSET,
    confidence: Annotated[
        float | None,
        typer.Option("--confidence", help="Least score of --output detections, 0.25 by default.", show_default=False),
    ] = None,
    tile: Annotated[
        str | None, typer.Option("--tile", help="Order of fpga's weights: TMxTN, such as 32x4.", show_default=False)
    ] = None,
    as_json: Json = False,
) -> None:
    """Write a bundle as an ONNX file and measure it in ONNX Runtime, or as a folder of integers for an FPGA.

    Example: yolo-dist export --model runs/bccd/stages/tuned --format onnx --out tuned.onnx
    """
    from yolo_dist.export.onnx import ExportConfig
    from yolo_dist.export.write import export_file

    if format_ == "fpga":
        given = {"--output": output != "boxes", "--opset": opset != OPSET, "--confidence": confidence is not None}
        if foreign := [name for name, is_given in given.items() if is_given]:
            verb = "is" if len(foreign) == 1 else "are"
            raise ConfigError("options", [f"{' and '.join(foreign)} {verb} for ONNX files, not for --format fpga"])
        _dump(load_model(model, cfg, weights, dataset, size=size), out, tile, as_json)
        return
    if tile is not None:
        raise ConfigError("options", ["--tile is for --format fpga"])
    values: dict[str, Any] = {"format": format_, "output": output, "opset": opset}
    if confidence is not None:
        values["confidence"] = confidence
    if format_ not in FORMATS:
        raise ConfigError("options", [f"--format {format_} is none of {', '.join(FORMATS)}"])
    config = validate(ExportConfig, values, "options")
    if confidence is not None and output != "detections":
        raise ConfigError("options", [f"--confidence is for --output detections; {output} leaves nothing out"])
    record = export_file(load_model(model, cfg, weights, dataset, size=size), config, out)
    if as_json:
        show.as_json(record.model_dump(mode="json"))
        return
    times = ", ".join(f"{ms:.1f} ms with {threads}" for threads, ms in record.latency_ms.items())
    typer.echo(f"{out}: {record.bytes / 1024:,.0f} KiB; an image takes {times} threads in ONNX Runtime")


def _dump(bundle: "Bundle", out: str, tile: str | None, as_json: bool) -> None:
    from yolo_dist.compress.quantization import QuantizedNetwork
    from yolo_dist.export.fpga import export_fpga
    from yolo_dist.export.tiles import parse_tile

    if not isinstance(bundle.network, QuantizedNetwork):
        raise NotExportable("format fpga takes a quantised bundle; quantise with power_of_two and fold_batchnorm")
    folder = Path(out)
    export_fpga(bundle.network, folder, None if tile is None else parse_tile(tile))
    written = sum(path.stat().st_size for path in folder.iterdir())
    if as_json:
        show.as_json({"folder": out, "bytes": written})
    else:
        typer.echo(f"{out}: {written / 1024:,.0f} KiB of integers; index.json says what they are")
