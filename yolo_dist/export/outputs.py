"""What an exported file gives: the heads' raw maps, boxes, or detections."""

from collections.abc import Sequence

import numpy as np

from yolo_dist.darknet.heads import LARGEST_LOG_SCALE, Head
from yolo_dist.evaluate.inference import Thresholds
from yolo_dist.export.graph import Graph

BOX = 5
"""Numbers of a row before the classes: x, y, w, h, objectness."""


def add_raw(graph: Graph, head: Head, features: str, cells: tuple[int, int]) -> str:
    """A head's channels as `HeadOutput` gives them, [B, A, h, w, 5 + classes]; `cells` are (w, h)."""
    width, height = cells
    shape = [0, len(head.anchors), BOX + head.classes, height, width]
    rows = graph.add("Reshape", features, graph.constant(shape, np.int64))
    return graph.add("Transpose", rows, perm=[0, 1, 3, 4, 2])


def add_boxes(graph: Graph, head: Head, raw: str, cells: tuple[int, int]) -> str:
    """A raw map decoded as `Head.decode` does, [B, A·h·w, 5 + classes]."""
    width, height = cells
    anchors = head.anchors.numpy()
    grid = np.stack(np.meshgrid(np.arange(width), np.arange(height)), -1)
    lengths = graph.constant([2, 2, 1 + head.classes], np.int64)
    centre, size, scores = graph.add_split("Split", [raw, lengths], 3, axis=-1)
    offset = graph.add("Sigmoid", centre)
    if head.scale_x_y != 1:
        offset = graph.add("Mul", offset, graph.constant(head.scale_x_y))
        offset = graph.add("Sub", offset, graph.constant((head.scale_x_y - 1) / 2))
    centre = graph.add("Mul", graph.add("Add", offset, graph.constant(grid)), graph.constant(head.stride))
    growth = graph.add("Exp", graph.add("Min", size, graph.constant(LARGEST_LOG_SCALE)))
    half = graph.add("Mul", growth, graph.constant(anchors[:, None, None] / 2))
    corners = graph.add("Sub", centre, half), graph.add("Add", centre, half)
    rows = graph.add("Concat", *corners, graph.add("Sigmoid", scores), axis=-1)
    shape = graph.constant([0, len(anchors) * height * width, BOX + head.classes], np.int64)
    return graph.add("Reshape", rows, shape)


def add_detections(graph: Graph, boxes: str, classes: int, thresholds: Thresholds) -> str:
    """Boxes after greedy suppression within each class, [n, 7]: image, x1, y1, x2, y2, score, class.

    The most that are kept is of each image and class. The order is that of ONNX's operator: images, classes, scores.
    """
    corners, objectness, probabilities = graph.add_split(
        "Split", [boxes, graph.constant([4, 1, classes], np.int64)], 3, axis=-1
    )
    scores = graph.add("Mul", objectness, probabilities)
    if not thresholds.multi_label:
        likeliest = graph.add("ArgMax", scores, axis=-1, keepdims=1)
        chosen = graph.add("Equal", likeliest, graph.constant(range(classes), np.int64))
        scores = graph.add("Where", chosen, scores, graph.constant(0.0))
    by_class = graph.add("Transpose", scores, perm=[0, 2, 1])
    selected = graph.add(  # overlaps stay the same when x and y change places
        "NonMaxSuppression",
        corners,
        by_class,
        graph.constant([thresholds.max_detections], np.int64),
        graph.constant([thresholds.nms_iou]),
        graph.constant([thresholds.confidence]),
    )
    image, label, row = graph.add_split("Split", [selected, graph.constant([1, 1, 1], np.int64)], 3, axis=1)
    found = graph.add("GatherND", corners, graph.add("Concat", image, row, axis=1))
    score = graph.add("GatherND", by_class, selected)
    columns = (
        graph.add("Cast", image, to=1),
        found,
        graph.add("Unsqueeze", score, graph.constant([1], np.int64)),
        graph.add("Cast", label, to=1),
    )
    return graph.add("Concat", *columns, axis=1)


def rows_of(heads: Sequence[Head], cells: Sequence[tuple[int, int]]) -> int:
    """Boxes an image."""
    return sum(len(head.anchors) * width * height for head, (width, height) in zip(heads, cells, strict=True))
