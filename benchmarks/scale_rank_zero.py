"""What the first worker does while all others wait: the metrics of an evaluation, and a checkpoint."""

import pickle
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from yolo_dist.bundle import Bundle
from yolo_dist.darknet.network import Network, initialize
from yolo_dist.darknet.zoo import zoo_cfg
from yolo_dist.data.annotations import Boxes
from yolo_dist.data.shards import ShardSet
from yolo_dist.evaluate.evaluator import KEPT_AN_IMAGE, EvaluationConfig
from yolo_dist.evaluate.metrics import GroundTruth, coco_metrics
from yolo_dist.evaluate.nms import Detections
from yolo_dist.storage import location
from yolo_dist.train.checkpoint import Checkpoints, State
from yolo_dist.train.config import TrainConfig
from yolo_dist.train.loop import Trainer

IMAGES, CLASSES, OBJECTS = 5000, 80, 7
"""As many images and classes as COCO's validation split has, and about as many objects an image."""
SIDE = 640
BATCH = EvaluationConfig().batch_size


def evaluation() -> dict[str, Any]:
    """Bytes of the detections, seconds of the metrics, and what each of so many workers receives."""
    generator = np.random.default_rng(0)
    truth, found = [], []
    for number in range(IMAGES):
        image = GroundTruth(str(number), SIDE, SIDE, objects(generator))
        truth.append(image)
        found.append((number, detections(image.boxes, generator)))
    share = len(pickle.dumps(found[:BATCH]))
    began = time.process_time()  # in one thread, and other programs do not count
    metrics = coco_metrics(truth, [one for _, one in found], [f"class {number}" for number in range(CLASSES)])
    seconds = time.process_time() - began
    print(f"metrics of {IMAGES} images: {seconds:.1f} s (mAP {metrics.map:.2f}); {share // BATCH} bytes an image")
    return {
        "images": IMAGES,
        "classes": CLASSES,
        "detections_an_image": KEPT_AN_IMAGE,
        "bytes_an_image": share // BATCH,
        "processor_seconds_of_metrics": round(seconds, 1),
        "bytes_received_by_each_of": {nodes: received(nodes, share) for nodes in (10, 100, 1000)},
        "most_workers_with_images": -(-IMAGES // BATCH),
    }


def received(nodes: int, batch_bytes: int) -> int:
    """Bytes that each worker gets: all shares are as long as the longest, which has one batch more than others."""
    batches = -(-IMAGES // BATCH)
    return nodes * -(-batches // nodes) * batch_bytes


def objects(generator: np.random.Generator) -> Boxes:
    """Some boxes anywhere."""
    corner = generator.uniform(0, SIDE * 0.7, (OBJECTS, 2))
    xyxy = np.concatenate([corner, corner + generator.uniform(8, SIDE * 0.3, (OBJECTS, 2))], axis=1)
    labels = generator.integers(0, CLASSES, OBJECTS)
    return Boxes(xyxy.astype(np.float32), labels.astype(np.int32), np.zeros(OBJECTS, np.bool_))


def detections(boxes: Boxes, generator: np.random.Generator) -> Detections:
    """As many as are kept at a low confidence: some near each object, most of its class, scores that fall quickly."""
    near = generator.integers(0, len(boxes), KEPT_AN_IMAGE)
    xyxy = boxes.xyxy[near] + generator.normal(0, 12, (KEPT_AN_IMAGE, 4))
    xyxy[:, 2:] = np.maximum(xyxy[:, 2:], xyxy[:, :2] + 1)
    random = generator.integers(0, CLASSES, KEPT_AN_IMAGE)
    labels = np.where(generator.random(KEPT_AN_IMAGE) < 0.3, boxes.labels[near], random)
    scores = -np.sort(-(generator.random(KEPT_AN_IMAGE) ** 6))
    return Detections(xyxy.astype(np.float32), scores.astype(np.float32), labels.astype(np.int32))


def trained(name: str, classes: int, shards: ShardSet) -> tuple[Bundle, State]:
    """A network and the state of its training; every parameter has momentum."""
    network = Network(zoo_cfg(name, classes=classes, image_size=(416, 416)))
    initialize(network, 0)
    trainer = Trainer(network, shards, TrainConfig(batch_size=8), (416, 416))
    for parameter in network.parameters():
        parameter.grad = torch.zeros_like(parameter)
    trainer.optimizer.step()
    labels = tuple(f"class-{number}" for number in range(classes))
    return Bundle(network, labels, (416, 416)), {"trainer": trainer.state(), "seconds": 1.0}


def checkpoint(state: State, rounds: int = 3) -> dict[str, Any]:
    """Bytes and median seconds of a checkpoint on a local disk."""
    with tempfile.TemporaryDirectory() as folder:
        checkpoints, seconds = Checkpoints(location(folder)), []
        for step in range(rounds):
            began = time.perf_counter()
            checkpoints.save(step, state)
            seconds.append(time.perf_counter() - began)
        size = sum(file.stat().st_size for file in next(Path(folder).glob("step-*")).iterdir())
        began = time.perf_counter()
        checkpoints.newest()
        reading = time.perf_counter() - began
    return {
        "bytes": size,
        "seconds": round(float(np.median(seconds)), 2),
        "seconds_to_read_and_check": round(reading, 2),
    }
