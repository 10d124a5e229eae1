"""Runs a recipe: stage after stage, each one kept under a hash of everything that went into it."""

import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any, Protocol

from upath import UPath

from yolo_dist.bundle import Bundle, open_bundle, require_classes
from yolo_dist.compress.distillation.pairing import require_equal_heads
from yolo_dist.compress.pruning.proof import weight_bytes
from yolo_dist.compress.quantization import QuantizedNetwork
from yolo_dist.console import say
from yolo_dist.darknet.shapes import count_macs, count_parameters
from yolo_dist.data.mixture import place_of
from yolo_dist.errors import ConfigError, InputError, ModelError
from yolo_dist.evaluate.latency import network_latency_ms
from yolo_dist.export.write import ExportRecord, read_export
from yolo_dist.inputs import Inputs, check
from yolo_dist.layout import (
    CHECKPOINTS_FOLDER,
    METRICS_FILE,
    RECIPE_FILE,
    RESULTS_FILE,
    SPACE_FILE,
    STAGE_FILE,
    UNFINISHED,
    WORK_FOLDER,
)
from yolo_dist.lease import Lease, hold
from yolo_dist.model import build_model
from yolo_dist.object_store import reaching
from yolo_dist.ray_cluster import joins_a_cluster, problems_of_workers
from yolo_dist.recipe import ExportStage, PruneStage, QuantizeStage, Recipe, Stage, TrainStage, teacher_named_by
from yolo_dist.report import build_report
from yolo_dist.stage_cache import StageResult, finished_stage, is_whole, stage_key
from yolo_dist.stage_tracking import run_identity, shown_of, track_stage
from yolo_dist.stages import (
    StageContext,
    collect,
    export_stage,
    prune_stage,
    quantize_stage,
    read_evaluation,
    settings_used,
    train_stage,
)
from yolo_dist.storage import location, publish, remove
from yolo_dist.train.checkpoint import has_checkpoints, seconds_trained


class Stages(Protocol):
    """Where stages are done, and where they may be there already."""

    def doing(self, stage: str, key: str, run: UPath, is_whole: Callable[[], bool]) -> AbstractContextManager[UPath]:
        """Inside the block a stage is done for the run in a folder, unless it is there when the block begins.

        Args:
            stage: its id.
            key: hash of everything that its result depends on.
            run: the run's folder.
            is_whole: whether the run's copy of the stage is there and undamaged.

        Yields:
            The folder for what is unfinished.
        """


class OwnStages:
    """Those of a run that shares nothing with others."""

    @contextmanager
    def doing(self, stage: str, key: str, run: UPath, is_whole: Callable[[], bool]) -> Iterator[UPath]:  # noqa: ARG002
        """Nobody else does the stage."""
        yield run


@dataclass(frozen=True)
class _Run:
    """A recipe that is run in a folder which this process holds."""

    recipe: Recipe
    inputs: Inputs
    folder: UPath
    stages: Stages
    lease: Lease

    def publish(self, results: Sequence[StageResult]) -> None:
        """Write the rows that are there, if nobody has taken the folder over."""
        self.lease.require()
        publish(self.folder / RESULTS_FILE, json.dumps([asdict(result) for result in results], indent=2))


def run(recipe: Recipe, source: str = "", stages: Stages | None = None) -> list[StageResult]:
    """Run every stage that is not there already, and write results and report.

    The run's folder is `storage/name`; interrupted, the same call goes on where it stopped.

    Args:
        recipe: what to run.
        source: its file, for messages; its name by default.
        stages: shared with other runs, or this run's own.

    Raises:
        InputError: recipe, data or model are wrong, or this machine has too little room for the workers.
        RunHeld: another process runs a recipe of this name here.
        TrainError, ProofError: a stage failed.
    """
    inputs = check(recipe, source, _problems_of_room(recipe))
    folder = location(recipe.storage) / recipe.name
    with hold(folder, say) as lease:
        if (folder / SPACE_FILE).exists():
            raise ConfigError(source or recipe.name, [f"{folder} holds a search; give the run another name or storage"])
        return _run(_Run(recipe, inputs, folder, stages or OwnStages(), lease))


def _problems_of_room(recipe: Recipe) -> list[str]:
    """Why this machine has too little room for the workers of what is left to do; a cluster's nodes may join later."""
    if joins_a_cluster():
        return []
    cluster = recipe.cluster
    problems = problems_of_workers(cluster.resources, cluster.fewest_workers, "cluster.workers")
    return [] if problems and _seems_done(recipe) else problems


def _seems_done(recipe: Recipe) -> bool:
    """Whether every stage that takes workers was done once: what a larger machine did is taken from the cache here."""
    recipe.object_store.apply()
    with suppress(InputError, OSError):
        folder = location(recipe.storage) / recipe.name / "stages"
        with reaching(folder):
            stages = [stage.id for stage in recipe.stages if not isinstance(stage, ExportStage)]
            return all((folder / stage / STAGE_FILE).exists() for stage in stages)
    return False


def _run(run: _Run) -> list[StageResult]:
    recipe, folder = run.recipe, run.folder
    start = _initial(recipe, run.inputs, folder / "initial")
    _require_fitting_teachers(recipe, start)
    publish(folder / RECIPE_FILE, recipe.to_yaml())
    results: list[StageResult] = []
    for stage in recipe.stages:
        # before the stage, not only after it: rows of another recipe must not stand beside this one if it fails
        run.publish(results)
        origin = recipe.start_of(stage)
        results.append(_run_stage(run, stage, folder / "stages" / origin if origin else start))
    run.publish(results)
    for unfinished in UNFINISHED:
        remove(folder / unfinished)
    if all(result.cached for result in results):
        say(f"{recipe.name}: nothing to do, all {len(results)} stages are there")
    build_report(folder)
    return results


def _require_fitting_teachers(recipe: Recipe, start: UPath) -> None:
    """Heads stay what they are from stage to stage: a teacher that does not fit is refused before the first."""
    if teachers := recipe.foreign_teachers():
        student = open_bundle(start).network
        for teacher in teachers:
            require_equal_heads(student, open_bundle(teacher).network, teacher)


def _run_stage(run: _Run, stage: Stage, start: UPath) -> StageResult:
    target = run.folder / "stages" / stage.id
    teacher = _teacher(run.recipe, stage, run.folder)
    key = stage_key(run.recipe, run.inputs, stage, start, teacher)
    if done := finished_stage(target, key, stage):
        say(f"{stage.id}: cached")
        return done
    with run.stages.doing(stage.id, key, run.folder, partial(is_whole, target, key, stage)) as unfinished:
        if done := finished_stage(target, key, stage):
            say(f"{stage.id}: done by another run")
            return done
        return _do_stage(run, stage, start, teacher, key, unfinished)


def _do_stage(run: _Run, stage: Stage, start: UPath, teacher: UPath | None, key: str, unfinished: UPath) -> StageResult:
    recipe, inputs, folder = run.recipe, run.inputs, run.folder
    target = folder / "stages" / stage.id
    say(f"{stage.id}: {stage.kind} …")
    context = StageContext(
        run=recipe.name,
        stage=stage.id,
        start=start,
        output=unfinished / WORK_FOLDER / key[:16],
        train=place_of(inputs.train),
        validation=place_of(inputs.validation),
        metrics=folder / METRICS_FILE,
        checkpoints=unfinished / CHECKPOINTS_FOLDER,
        name=key[:16],
        max_detections=inputs.card.max_detections,
        evaluation=recipe.evaluation,
        cluster=recipe.cluster,
        tracking=recipe.tracking,
        teacher=teacher,
        run_identity=run_identity(folder, recipe.tracking),
        recipe=shown_of(recipe, inputs.card.classes),
    )
    began = time.monotonic() - seconds_trained(context.checkpoints / context.name)
    match stage:
        case TrainStage():
            if unfinished == folder:
                _tell_of_other_checkpoints(context)
            train_stage(context, stage.settings())
        case PruneStage():
            prune_stage(context, stage.settings())
        case QuantizeStage():
            quantize_stage(context, stage.settings())
        case ExportStage():
            export_stage(context, stage.settings())
    run.lease.require()
    result = _publish(context, stage, key, began, target)
    remove(context.output)
    remove(context.checkpoints / context.name)
    track_stage(context, stage.kind, settings_used(stage.settings(), target), asdict(result), target)
    return result


def _tell_of_other_checkpoints(context: StageContext) -> None:
    """In one line: that a training which was stopped does not go on, for it is no longer the same."""
    if has_checkpoints(context.checkpoints / context.name) or not context.checkpoints.exists():
        return
    if others := [path for path in context.checkpoints.iterdir() if has_checkpoints(path)]:
        say(
            f"{context.stage}: begins anew, for checkpoints in {others[0]} are of other settings, data or start; with "
            "those as they were it would go on"
        )


def _publish(context: StageContext, stage: Stage, key: str, began: float, target: UPath) -> StageResult:
    """Move a stage's output to its place in the run, with what was measured."""
    evaluation = read_evaluation(context.output)
    bundle = None
    if isinstance(stage, ExportStage):
        measured = _size_and_speed_of_file(open_bundle(context.start), read_export(context.output))
    else:
        bundle = replace(
            open_bundle(context.output / "bundle"),
            stage={"id": stage.id, "kind": stage.kind, "config": settings_used(stage.settings(), context.output)},
            metrics={name: evaluation[name] for name in ("map", "map50")},
        )
        measured = _size_and_speed(bundle)
    result = StageResult(
        id=stage.id,
        kind=stage.kind,
        map=evaluation["map"],
        map50=evaluation["map50"],
        **measured,
        seconds=round(time.monotonic() - began, 1),
        cached=False,
    )
    collect(context.output, bundle, target, {STAGE_FILE: json.dumps({"key": key, "result": asdict(result)}, indent=2)})
    return result


def _size_and_speed(bundle: Bundle) -> dict[str, Any]:
    network = bundle.network
    latency: float | None
    if isinstance(network, QuantizedNetwork):  # simulated: slower than what is deployed
        size, latency = network.stored_bytes, None
    else:
        size, latency = weight_bytes(network), round(network_latency_ms(network, bundle.image_size), 3)
    return {
        "parameters": count_parameters(network.cfg),
        "macs": count_macs(network.cfg, bundle.image_size),
        "weight_bytes": size,
        "latency_ms": latency,
    }


def _size_and_speed_of_file(start: Bundle, record: ExportRecord) -> dict[str, Any]:
    return {
        "parameters": count_parameters(start.network.cfg),
        "macs": count_macs(start.network.cfg, start.image_size),
        "weight_bytes": record.bytes,
        "latency_ms": record.latency_ms[1],
    }


def _teacher(recipe: Recipe, stage: Stage, folder: UPath) -> UPath | None:
    """Where a distilled stage's teacher lies."""
    if (earlier := recipe.teacher_stage_of(stage)) is not None:
        return folder / "stages" / earlier
    named = teacher_named_by(stage)
    return None if named is None else location(named)


def _initial(recipe: Recipe, inputs: Inputs, target: UPath) -> UPath:
    """The bundle that the first stage starts from, saved where every worker can read it."""
    origin = {"id": "initial", "kind": "model", "config": _origin(recipe, inputs)}
    try:
        if open_bundle(target).stage == origin:
            return target
    except ModelError:
        remove(target)
    bundle = build_model(recipe.model, inputs.card, inputs.train, recipe.image_size, recipe.seed)
    require_classes(bundle, inputs.card.classes, recipe.name)
    replace(bundle, image_size=recipe.image_size, stage=origin, metrics=None).save(target)
    return target


def _origin(recipe: Recipe, inputs: Inputs) -> dict[str, Any]:
    """Everything that the first weights depend on; files by their content, so that they may move."""
    return {
        "model": recipe.model.model_dump(mode="json", include={"zoo", "width", "channels"}, exclude_none=True),
        "files": recipe.model.fingerprints(),
        "image_size": list(recipe.image_size),
        "seed": recipe.seed,
        "train": inputs.train.fingerprint,
        "card": inputs.card.model_dump(mode="json", include={"classes", "anchors"}),
    }
