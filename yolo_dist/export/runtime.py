"""Exported files as ONNX Runtime computes them: predictions for evaluation, and how long they take."""

import json
from dataclasses import dataclass

import numpy as np
import onnxruntime
import torch
from onnxruntime.capi.onnxruntime_pybind11_state import Fail, InvalidArgument, InvalidGraph, InvalidProtobuf
from pydantic import ValidationError
from torch import Tensor

from yolo_dist.darknet.channels import in_channels
from yolo_dist.errors import ModelError
from yolo_dist.evaluate.latency import median_ms
from yolo_dist.export.onnx import IMAGES, ExportConfig
from yolo_dist.object_store import persistently
from yolo_dist.storage import Url, location

MODEL_FILE = "model.onnx"
ERRORS = 3
"""ONNX Runtime's level of what it prints."""
WITHOUT_OVERFLOW = "session.x64quantprecision"
"""Makes ONNX Runtime add products of bytes in 32 bits on x86 processors without VNNI instructions too. Its kernels for
those otherwise add two products of uint8 and int8 in 16 bits, which cuts off what is larger."""


@dataclass(frozen=True, eq=False)
class ExportedModel:
    """A file that `export_onnx` made, ready to run.

    Attributes:
        session: of ONNX Runtime.
        classes: names in the order of the class scores.
        image_size: (width, height) of the input in pixels.
        config: what was exported.
    """

    session: onnxruntime.InferenceSession
    classes: tuple[str, ...]
    image_size: tuple[int, int]
    config: ExportConfig

    def __call__(self, images: Tensor) -> Tensor:
        """Boxes of uint8 RGB images [B, 3, H, W], float32 [B, rows, 5 + classes], as `decode_heads` gives them."""
        seen = in_channels(images, self.session.get_inputs()[0].shape[1])
        (boxes,) = self.session.run(None, {IMAGES: seen.cpu().numpy()})
        return torch.from_numpy(boxes)

    def require_boxes(self, source: str) -> None:
        """Refuse a file whose output cannot be evaluated.

        Raises:
            ModelError: it gives something else than boxes.
        """
        if self.config.output != "boxes":
            raise ModelError(f"{source}: gives {self.config.output}; only a file with output boxes can be evaluated")

    def latency_ms(self, repeats: int = 20, seconds: float = 3.0) -> float:
        """Median time of one image with all that is in the file; fewer repeats once `seconds` have passed."""
        width, height = self.image_size
        channels = self.session.get_inputs()[0].shape[1]
        image = np.random.default_rng(0).integers(0, 256, (1, channels, height, width), np.uint8)
        return median_ms(lambda: self.session.run(None, {IMAGES: image}), repeats, seconds)


def session_options(threads: int = 1) -> onnxruntime.SessionOptions:
    """With which ONNX Runtime computes what is in an exported file, on every processor; `threads` of it compute."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = ERRORS
    options.add_session_config_entry(WITHOUT_OVERFLOW, "1")
    return options


def open_exported(url: Url, threads: int = 1) -> ExportedModel:
    """Load an exported file from a path or URL, or from the folder of a stage that has one.

    Args:
        url: of the file or folder.
        threads: that compute.

    Raises:
        ModelError: there is no such file, or it is none that an export made.
    """
    path = location(url)
    if path.is_dir():
        path /= MODEL_FILE
    try:
        content = persistently(path, path.read_bytes)
    except FileNotFoundError:
        raise ModelError(f"{path}: no such file; `yolo-dist export` writes one from a bundle") from None
    return load_exported(content, str(path), threads)


def load_exported(content: bytes, source: str, threads: int = 1) -> ExportedModel:
    """Load the bytes of an exported file; `source` is what messages call it. See `open_exported`."""
    try:
        session = onnxruntime.InferenceSession(content, session_options(threads), providers=["CPUExecutionProvider"])
    except (Fail, InvalidArgument, InvalidGraph, InvalidProtobuf) as error:
        reason = str(error).splitlines()[0]
        raise ModelError(f"{source}: ONNX Runtime cannot load it ({reason}); export it again") from None
    metadata = session.get_modelmeta().custom_metadata_map
    try:
        config = ExportConfig.model_validate_json(metadata["export"])
        width, height = json.loads(metadata["image_size"])
        return ExportedModel(session, tuple(json.loads(metadata["classes"])), (width, height), config)
    except (LookupError, ValueError, ValidationError):
        raise ModelError(f"{source}: does not say what it is; `yolo-dist export` writes files that do") from None
