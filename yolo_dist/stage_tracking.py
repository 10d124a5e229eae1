"""What a finished stage of any kind gives to trackers, and what tells one run from another there."""

import json
import secrets
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

from upath import UPath

from yolo_dist.bundle import CFG_FILE, QUANTIZATION_FILE, RECORD_FILE, WEIGHTS_FILE, read_record
from yolo_dist.console import say
from yolo_dist.errors import YoloDistError
from yolo_dist.evaluate.samples import EVALUATION_FILE, SAMPLES_FOLDER
from yolo_dist.export.runtime import MODEL_FILE
from yolo_dist.export.write import EXPORT_FILE
from yolo_dist.object_store import is_remote
from yolo_dist.recipe import Recipe
from yolo_dist.stages import PROOF_FILE, StageContext
from yolo_dist.storage import local_copy, publish
from yolo_dist.train.tracking import Outcome, TrackedStage, TrackingConfig, numbers_of, track_outcome

SHOWN_OF_RECIPE = {
    *("name", "dataset", "shards", "train_split", "validation_split", "model", "image_size", "seed"),
    *("evaluation", "cluster"),
}
"""What trackers are told; where a run is kept and how its store is reached is not theirs to know."""
IDENTITY_FILE = "tracking.json"
RECORDS = (RECORD_FILE, CFG_FILE, EXPORT_FILE)
MODEL_FILES = (*RECORDS, WEIGHTS_FILE, QUANTIZATION_FILE, MODEL_FILE)


def run_identity(folder: UPath, config: TrackingConfig) -> str:
    """What tells a run's folder from all others, made once and kept in `tracking.json`; nothing without a tracker that
    asks for it."""
    if not config.uses_wandb:
        return ""
    path = folder / IDENTITY_FILE
    try:
        return str(json.loads(path.read_bytes())["identity"])
    except (FileNotFoundError, LookupError, TypeError, ValueError):
        identity = secrets.token_hex(3)
        publish(path, json.dumps({"identity": identity}))
        return identity


def shown_of(recipe: Recipe, classes: Sequence[str] = ()) -> dict[str, Any]:
    """What trackers are told of a run: its recipe without the stages, and the classes of its dataset."""
    shown = recipe.model_dump(mode="json", exclude_none=True, include=SHOWN_OF_RECIPE)
    return shown | ({"classes": list(classes)} if classes else {})


def track_stage(
    context: StageContext, kind: str, settings: dict[str, Any], result: Mapping[str, Any], published: UPath
) -> None:
    """Give trackers what a stage published: its row of the results, accuracies, proof, images, and the bundle.

    Args:
        context: of the stage.
        kind: of the stage.
        settings: its configuration.
        result: its row of the results.
        published: its folder.
    """
    if not (context.tracking.uses_wandb or context.tracking.tensorboard):
        return
    stage = TrackedStage(
        context.metrics,
        context.run,
        context.stage,
        kind,
        context.run_identity,
        context.name,
        settings,
        context.recipe,
    )
    try:
        with _outcome(context, result, published) as outcome:
            track_outcome(stage, context.tracking, outcome)
    except (OSError, YoloDistError) as error:  # the stage itself is done and in its place
        say(f"{context.stage}: what it made was not tracked ({error})")


@contextmanager
def _outcome(context: StageContext, result: Mapping[str, Any], published: UPath) -> Iterator[Outcome]:
    lasting = not is_remote(published)
    names = MODEL_FILES if lasting else RECORDS
    with ExitStack() as local:
        samples = local.enter_context(local_copy(published / SAMPLES_FOLDER))
        there = [published / name for name in names if (published / name).exists()]
        yield Outcome(
            numbers=_numbers(context, result, published),
            images=sorted(samples.glob("*.jpg")),
            files=[local.enter_context(local_copy(path)) for path in there],
            url=str(published),
            lasting=lasting,
        )


def _numbers(context: StageContext, result: Mapping[str, Any], published: UPath) -> dict[str, float]:
    numbers = numbers_of({name: value for name, value in result.items() if name != "cached"}, "result/")
    evaluation = json.loads((published / EVALUATION_FILE).read_bytes())
    numbers |= numbers_of(evaluation["per_class"], "result/per_class/")
    numbers |= numbers_of(read_record(context.start)[0].metrics or {}, "before/")
    if (proof := published / PROOF_FILE).exists():
        numbers |= numbers_of(json.loads(proof.read_bytes()), "proof/")
    return numbers
