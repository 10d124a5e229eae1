"""Where a run's progress goes: a line a person can read, `metrics.jsonl`, TensorBoard, Weights & Biases."""

from yolo_dist.train.tracking.config import TrackingConfig, WandbConfig
from yolo_dist.train.tracking.metrics_file import read_metrics
from yolo_dist.train.tracking.progress import describe
from yolo_dist.train.tracking.stage import Outcome, TrackedStage, numbers_of
from yolo_dist.train.tracking.tracker import Tracker, track_outcome

__all__ = [
    "Outcome",
    "TrackedStage",
    "Tracker",
    "TrackingConfig",
    "WandbConfig",
    "describe",
    "numbers_of",
    "read_metrics",
    "track_outcome",
]
