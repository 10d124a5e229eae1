"""A bundle as an ONNX file, written operator by operator: float32, or integers with QuantizeLinear around them."""

import json
from collections.abc import Sequence
from typing import Literal

import numpy as np
import onnx
from onnx import ModelProto, TensorProto, ValueInfoProto, helper
from pydantic import Field

from yolo_dist.bundle import Bundle
from yolo_dist.compress.quantization import QuantizedNetwork
from yolo_dist.config import Config
from yolo_dist.darknet.cfg import sources
from yolo_dist.darknet.network import Network
from yolo_dist.darknet.shapes import LayerShape, infer_shapes
from yolo_dist.errors import NotExportable
from yolo_dist.evaluate.inference import Thresholds
from yolo_dist.export.graph import Graph
from yolo_dist.export.grids import StoredGrid, add_grid
from yolo_dist.export.layers import Signal, add_layer
from yolo_dist.export.outputs import BOX, add_boxes, add_detections, add_raw, rows_of

IMAGES, BATCH = "images", "batch"
BRIGHTEST = 255

Format = Literal["onnx", "onnx-int8"]
Output = Literal["boxes", "raw", "detections"]


class ExportConfig(Config):
    """What is written."""

    format: Format = "onnx"
    """`onnx` is float32; `onnx-int8` takes a quantised network."""
    output: Output = "boxes"
    """Decoded predictions of all heads; the heads' raw maps; or what suppression leaves of the boxes."""
    opset: int = Field(default=21, ge=13, le=24)
    """Version of ONNX's operators; runtimes say up to which one they know."""
    confidence: float = Field(default=0.25, ge=0, lt=1)
    """Least score of a detection."""
    nms_iou: float = Field(default=0.45, ge=0, le=1)
    """Detections of one class that overlap by more than this are one object."""
    max_detections: int = Field(default=300, ge=1)
    """Detections of each image and class."""
    multi_label: bool = False
    """Whether one box may be a detection of several classes."""

    @property
    def thresholds(self) -> Thresholds:
        """What counts as a detection."""
        return Thresholds(self.confidence, self.nms_iou, self.max_detections, self.multi_label)


def export_onnx(bundle: Bundle, config: ExportConfig | None = None) -> ModelProto:
    """A bundle as an ONNX model, checked.

    Its input `images` is uint8 RGB [batch, 3, H, W], letterboxed to the bundle's size. By `config.output` it gives
    `boxes`, float32 [batch, rows, 5 + classes] as `decode_heads` does; `raw_0`, `raw_1`, …, float32 [batch, A, h, w,
    5 + classes]; or `detections`, float32 [n, 7]: image, x1, y1, x2, y2, score, class. Class names, size and the
    bundle's fingerprint are among its metadata.

    Raises:
        NotExportable: the format does not go with the network, or the opset has no operator or integers for a layer.
    """
    config = config or ExportConfig()
    _require_fit(bundle.network, config.format)
    graph, outputs = _write(bundle, config)
    model = helper.make_model(
        graph.finish("yolo-dist", [_image_info(bundle)], outputs),
        opset_imports=[helper.make_opsetid("", config.opset)],
        producer_name="yolo-dist",
    )
    model.ir_version = helper.find_min_ir_version_for(list(model.opset_import))
    helper.set_model_props(model, _metadata(bundle, config))
    onnx.checker.check_model(model, full_check=True)
    return model


def _require_fit(network: Network, format_: Format) -> None:
    quantized = isinstance(network, QuantizedNetwork)
    if quantized and format_ == "onnx":
        raise NotExportable("the network is quantised, and format onnx is float32; take format onnx-int8")
    if not quantized and format_ == "onnx-int8":
        raise NotExportable("the network is not quantised; quantise it first, or take format onnx")


def _metadata(bundle: Bundle, config: ExportConfig) -> dict[str, str]:
    return {
        "classes": json.dumps(bundle.classes, ensure_ascii=False),
        "image_size": json.dumps(bundle.image_size),
        "fingerprint": bundle.fingerprint,
        "export": config.model_dump_json(),
    }


def _write(bundle: Bundle, config: ExportConfig) -> tuple[Graph, list[ValueInfoProto]]:
    """The graph and what it gives."""
    network, graph = bundle.network, Graph(config.opset)
    shapes = infer_shapes(network.cfg, bundle.image_size)
    cells = [(shapes[head.layer].width, shapes[head.layer].height) for head in network.heads]
    raws = []
    for head, size, features in zip(network.heads, cells, _add_layers(graph, network, shapes), strict=True):
        graph.place = f"layer {head.layer}"
        raws.append(add_raw(graph, head, features, size))
    if config.output == "raw":
        return graph, [
            graph.give(raw, f"raw_{number}", [BATCH, len(head.anchors), height, width, BOX + head.classes])
            for number, (raw, head, (width, height)) in enumerate(zip(raws, network.heads, cells, strict=True))
        ]
    boxes = []
    for head, size, raw in zip(network.heads, cells, raws, strict=True):
        graph.place = f"layer {head.layer}"
        boxes.append(add_boxes(graph, head, raw, size))
    graph.place = config.output
    joined = graph.add("Concat", *boxes, axis=1)
    classes = len(bundle.classes)
    if config.output == "boxes":
        return graph, [graph.give(joined, "boxes", [BATCH, rows_of(network.heads, cells), BOX + classes])]
    found = add_detections(graph, joined, classes, config.thresholds)
    return graph, [graph.give(found, "detections", ["found", 7])]


def _add_layers(graph: Graph, network: Network, shapes: Sequence[LayerShape]) -> list[str]:
    """All layers; for each head the map it reads."""
    image = _add_image(graph, network)
    signals: list[Signal] = []
    for index, (layer, module, shape) in enumerate(zip(network.cfg.layers, network.layers, shapes, strict=True)):
        graph.place = f"layer {index}"
        inputs = [signals[source] for source in sources(layer, index)] or [image]
        name, grid = add_layer(graph, module, inputs)
        signals.append(Signal(name, shape.out_channels, grid))
    return [signals[head.layer].name for head in network.heads]


def _add_image(graph: Graph, network: Network) -> Signal:
    """The image as real numbers in 0..1; where its grid has 255 steps, its bytes are the integers."""
    channels = network.cfg.net.channels
    grid = StoredGrid.of(network.image.grid()) if isinstance(network, QuantizedNetwork) else None
    if grid is not None and grid.scale == float(np.float32(1 / BRIGHTEST)):
        return Signal(graph.add("DequantizeLinear", IMAGES, graph.constant(grid.scale)), channels, grid)
    pixels = graph.add("Div", graph.add("Cast", IMAGES, to=TensorProto.FLOAT), graph.constant(BRIGHTEST))
    return Signal(pixels if grid is None else add_grid(graph, pixels, grid)[0], channels, grid)


def _image_info(bundle: Bundle) -> ValueInfoProto:
    width, height = bundle.image_size
    shape: list[int | str | None] = [BATCH, bundle.network.cfg.net.channels, height, width]
    return helper.make_tensor_value_info(IMAGES, TensorProto.UINT8, shape)
