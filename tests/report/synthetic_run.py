"""A run folder as the pipeline leaves it, with made-up numbers: train, sparse train, prune, fine-tune."""

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from small_networks import cfg_of, conv, head

from yolo_dist.darknet.cfg import Shortcut, format_cfg

RECALLS = np.linspace(0, 1, 101)
EDGES = [0.0, 1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0]
RECIPE = (
    "name: cells\ndataset: bccd\nmodel: yolov3-tiny\nimage_size: [320, 256]\n"
    "stages: [{id: base}, {id: sparse}, {id: pruned}, {id: tuned}]\n"
)
NETWORK = cfg_of(conv(8), conv(4), conv(8, 3), Shortcut(from_layer=-3), conv(6), *head())


def write_run(folder: Path) -> Path:
    """Fills `folder` with a whole run and returns it."""
    (folder / "recipe.yaml").parent.mkdir(parents=True, exist_ok=True)
    (folder / "recipe.yaml").write_text(RECIPE)
    write_json(folder / "results.json", results())
    write_epochs(folder, [*epochs("base", 3), *epochs("sparse", 3, gauge=True), *epochs("tuned", 2)])
    for number, stage in enumerate(results()):
        write_json(folder / "stages" / stage["id"] / "evaluation.json", evaluation(stage["map50"]))
        write_sample(folder / "stages" / stage["id"] / "samples" / "cell-1.jpg", shade=50 * number)
    write_json(folder / "stages" / "pruned" / "proof.json", proof())
    write_json(folder / "stages" / "pruned" / "plan.json", plan())
    (folder / "stages" / "sparse" / "model.cfg").write_text(format_cfg(NETWORK))
    return folder


def results() -> list[dict[str, Any]]:
    small = {"parameters": 191_412, "macs": 171_000_000, "weight_bytes": 776_000}
    large = {"parameters": 8_674_496, "macs": 2_050_000_000, "weight_bytes": 34_720_000}
    return [
        {"id": "base", "kind": "train", "map": 0.512, "map50": 0.866, **large, "latency_ms": 36.9, "seconds": 912.0}
        | {"cached": True},
        {"id": "sparse", "kind": "train", "map": 0.498, "map50": 0.852, **large, "latency_ms": 36.5, "seconds": 431.0}
        | {"cached": False},
        {"id": "pruned", "kind": "prune", "map": 0.41, "map50": 0.769, **small, "latency_ms": 7.9, "seconds": 14.0}
        | {"cached": False},
        {"id": "tuned", "kind": "train", "map": 0.503, "map50": 0.863, **small, "latency_ms": 7.8, "seconds": 187.0}
        | {"cached": False},
    ]


def epochs(stage: str, count: int, gauge: bool = False) -> list[dict[str, Any]]:
    lines = []
    for epoch in range(1, count + 1):
        box, objectness, class_ = 2.0 / epoch, 1.5 / epoch, 0.5 / epoch
        loss = {"box": box, "objectness": objectness, "class": class_, "total": box + objectness + class_}
        line = {"stage": stage, "epoch": epoch, "epochs": count, "step": 13 * epoch, "learning_rate": 0.01}
        line |= {"loss": loss, "images_per_second": 24.1, "seconds": 14.0 * epoch, "map": 0.4, "map50": 0.8}
        lines.append(line | {"gauge": gauge_at(epoch / count)} if gauge else line)
    return lines


def gauge_at(share: float) -> dict[str, Any]:
    small = round(100 * share)
    return {
        "quantiles": {"0.05": 1e-4, "0.5": 1.0 - 0.9 * share, "0.95": 1.1},
        "below": {"1e-2": 0.9 * share, "1e-3": 0.4 * share},
        "prunable": share * 0.72,
        "verdict": "ready" if share == 1 else "not yet",
        "histogram": {"edges": EDGES, "counts": [0, 0, small, 0, 100 - small, 0]},
    }


def evaluation(map50: float, classes: tuple[str, ...] = ("RBC", "WBC")) -> dict[str, Any]:
    curve = np.clip(1.5 - RECALLS / map50, 0, 1).tolist()
    return {
        "images": 87,
        "map": 0.5,
        "map50": map50,
        "map75": 0.4,
        "map_small": None,
        "map_medium": 0.5,
        "map_large": 0.6,
        "per_class": {name: {"map": 0.5, "map50": map50, "objects": 10 * n} for n, name in enumerate(classes, 1)},
        "precision": 0.84,
        "recall": 0.86,
        "f1": 0.85,
        "confidence": 0.31,
        "precision_recall": {"mean": curve, "per_class": dict.fromkeys(classes, curve)},
    }


def mixed_evaluation(map50: float) -> dict[str, Any]:
    """Of a mixture of two datasets."""
    own = {"street": evaluation(map50 - 0.1, ("RBC",)) | {"images": 30}, "home": evaluation(map50 + 0.1)}
    return evaluation(map50) | {"sources": own}


def proof() -> dict[str, Any]:
    return {
        "method": "normal",
        "percent": 0.85,
        "threshold": 0.0123,
        "images": 8,
        "max_abs_difference": 3.1e-6,
        "precision": "float32",
        "float32_difference": 3.1e-6,
        "tolerance": 1e-4,
        "parameters": {"before": 8_674_496, "after": 191_412},
        "macs": {"before": 2_050_000_000, "after": 171_000_000},
        "weight_bytes": {"before": 34_720_000, "after": 776_000},
        "latency_ms": {"before": 36.5, "after": 7.9},
        "map50": {"before": 0.852, "masked": 0.764, "after": 0.769},
    }


def plan() -> dict[str, Any]:
    """Of `NETWORK`: one of four and four of six channels go, and no block."""
    return {
        "method": "normal",
        "percent": 0.85,
        "threshold": 0.0123,
        "layers": {"1": {"channels": 4, "keep": [0, 1, 3]}, "4": {"channels": 6, "keep": [2, 5]}},
        "blocks": [],
    }


def write_json(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))


def write_epochs(folder: Path, lines: list[dict[str, Any]]) -> None:
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def write_sample(path: Path, shade: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), np.full((24, 32, 3), shade, np.uint8))
