"""Which stages of a run are there already: each is kept under a hash of everything that went into it."""

import hashlib
import json
from dataclasses import dataclass

from upath import UPath

from yolo_dist.bundle import open_bundle, read_record
from yolo_dist.console import say
from yolo_dist.errors import ModelError
from yolo_dist.evaluate.metrics import Metrics
from yolo_dist.evaluate.samples import EVALUATION_FILE
from yolo_dist.export.write import read_export
from yolo_dist.inputs import Inputs
from yolo_dist.layout import STAGE_FILE
from yolo_dist.recipe import ExportStage, Recipe, Stage

WITHOUT_EFFECT = {"checkpoint_every", "checkpoints_kept"}
"""Settings of a stage on which nothing it gives depends: a training that has begun goes on when they change."""
EVALUATED_ALIKE = {"batch_size"}
"""Settings of `evaluation` on which only rounding depends: less memory must not cost a finished training."""

RESULT_FORMAT = 7
"""Counts up when a stage of the same configuration would give another result than before."""

UNREADABLE = (ModelError, FileNotFoundError, LookupError, TypeError, ValueError)
"""What reading a damaged stage can raise."""


@dataclass(frozen=True)
class StageResult:
    """A row of the results: accuracy on the validation split, size, and speed of the network alone (batch 1).

    A quantised network has no speed before it is exported: its simulation is slower than what it simulates. An export
    stage's size and speed are its file's, all that is in it, in ONNX Runtime with one thread.
    """

    id: str
    kind: str
    map: float | None
    map50: float | None
    parameters: int
    macs: int
    weight_bytes: int
    latency_ms: float | None
    seconds: float
    cached: bool


def stage_key(recipe: Recipe, inputs: Inputs, stage: Stage, start: UPath, teacher: UPath | None) -> str:
    """Hash of everything that a stage's result depends on."""
    # without what is not set: a new option, unused, changes nothing
    config = stage.settings().model_dump(mode="json", exclude_none=True, exclude=WITHOUT_EFFECT)
    if teacher is not None:
        config["distillation"]["teacher"] = read_record(teacher)[1]
    parts = {
        "format": RESULT_FORMAT,
        "kind": stage.kind,
        "config": config,
        "start": read_record(start)[1],
        "train": inputs.train.fingerprint,
        "validation": inputs.validation.fingerprint,
        "evaluation": recipe.evaluation.model_dump(mode="json", exclude_none=True, exclude=EVALUATED_ALIKE),
        "max_detections": inputs.card.max_detections,
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def finished_stage(target: UPath, key: str, stage: Stage) -> StageResult | None:
    """The result of a stage that is there already, made from the same inputs and undamaged."""
    try:
        return _stored(target, key, stage)
    except UNREADABLE as error:
        say(f"{target}: damaged, doing the stage again ({' '.join(str(error).split())})")
        return None


def is_whole(target: UPath, key: str, stage: Stage) -> bool:
    """Whether a stage is there, made from the same inputs and undamaged; says nothing."""
    try:
        return _stored(target, key, stage) is not None
    except UNREADABLE:
        return False


def _stored(target: UPath, key: str, stage: Stage) -> StageResult | None:
    """What a stage's folder says of it; None if it is not there, or is made from other inputs.

    Raises:
        UNREADABLE: the folder is damaged.
    """
    record = target / STAGE_FILE
    if not record.exists():
        return None
    stored = json.loads(record.read_bytes())
    if stored["key"] != key:
        return None
    Metrics.model_validate_json((target / EVALUATION_FILE).read_bytes())
    if isinstance(stage, ExportStage):
        read_export(target)
    else:
        open_bundle(target)
    return StageResult(**(stored["result"] | {"cached": True}))
