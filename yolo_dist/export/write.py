"""An exported file with a record of its size and speed."""

import hashlib

from pydantic import BaseModel, ConfigDict
from upath import UPath

from yolo_dist.bundle import Bundle
from yolo_dist.errors import ModelError
from yolo_dist.export.onnx import ExportConfig, export_onnx
from yolo_dist.export.runtime import MODEL_FILE, load_exported
from yolo_dist.storage import Url, location, publish, sha256

EXPORT_FILE = "export.json"
THREADS = (1, 2)


class ExportRecord(BaseModel):
    """What was written.

    Attributes:
        export: the settings.
        bundle: fingerprint of the bundle it was made from.
        sha256: of the file.
        bytes: its size.
        latency_ms: number of threads → median time of one image in ONNX Runtime, all that is in the file.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    export: ExportConfig
    bundle: str
    sha256: str
    bytes: int
    latency_ms: dict[int, float]


def export_file(bundle: Bundle, config: ExportConfig, url: Url) -> ExportRecord:
    """Write a bundle as a file to a path or URL, and measure it.

    Raises:
        NotExportable: see `export_onnx`.
    """
    content = export_onnx(bundle, config).SerializeToString()
    latencies = {threads: round(load_exported(content, str(url), threads).latency_ms(), 3) for threads in THREADS}
    publish(location(url), content)
    return ExportRecord(
        export=config,
        bundle=bundle.fingerprint,
        sha256=hashlib.sha256(content).hexdigest(),
        bytes=len(content),
        latency_ms=latencies,
    )


def read_export(folder: UPath) -> ExportRecord:
    """The record in the folder of an export stage.

    Raises:
        ModelError: the file beside it is missing, or not the one that it tells of.
    """
    record = ExportRecord.model_validate_json((folder / EXPORT_FILE).read_bytes())
    if sha256(folder / MODEL_FILE) != record.sha256:
        raise ModelError(f"{folder / MODEL_FILE}: does not match {EXPORT_FILE}; export it again")
    return record
