"""What Ray Train's workers do: train a stage, or evaluate a bundle."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import ray.train
import torch
from upath import UPath

from yolo_dist.bundle import Bundle, open_bundle
from yolo_dist.console import say
from yolo_dist.darknet.network import Network, initialize
from yolo_dist.data.loader import image_batches
from yolo_dist.data.mixture import Images, Place, open_images
from yolo_dist.errors import NonFiniteLoss, NonFiniteOutput
from yolo_dist.evaluate.evaluator import Evaluation, EvaluationConfig, evaluate
from yolo_dist.evaluate.metrics import Metrics
from yolo_dist.evaluate.samples import save_evaluation
from yolo_dist.storage import location
from yolo_dist.train.batch_size import lack_of_memory_explained, noted_batch_size, settle_batch_size
from yolo_dist.train.cluster import FEWER_WORKERS, ClusterConfig, run_on_workers
from yolo_dist.train.config import TrainConfig
from yolo_dist.train.distilled import Teacher, teacher_of
from yolo_dist.train.failed_batch import failed_batch_saved
from yolo_dist.train.loop import Trainer
from yolo_dist.train.loss_guard import REMEDY
from yolo_dist.train.quantized import quantized_start
from yolo_dist.train.resuming import Resuming
from yolo_dist.train.tracking import TrackedStage, Tracker, TrackingConfig
from yolo_dist.train.workers import Workers

BUNDLE_FOLDER, EVALUATION_FOLDER, FAILURES_FOLDER = "bundle", "evaluation", "failures"
ENOUGH_TRAVEL = 1.0


@dataclass(frozen=True)
class EvaluateJob:
    """Evaluate a bundle.

    Attributes:
        model: URL of the bundle.
        validation: where the images of the split lie.
        output: URL of the folder in which the first worker leaves `evaluation/`.
        config: how to evaluate.
        max_detections: detections an image, as the dataset's protocol has it.
        threads: threads a worker that decode ahead of the network.
    """

    model: str
    validation: Place
    output: str
    config: EvaluationConfig = field(default_factory=EvaluationConfig)
    max_detections: int = 100
    threads: int = 1


@dataclass(frozen=True)
class TrainJob:
    """Train a bundle and evaluate it.

    Attributes:
        start: the bundle to start from, and the evaluation afterwards.
        train: where the images of the training split lie.
        config: the stage.
        tracking: trackers beside the run's metrics.
        metrics: URL of the run's `metrics.jsonl`.
        run, stage: names for trackers and progress.
        run_identity, stage_identity, recipe: see `TrackedStage`.
        teacher: URL of the teacher's bundle, of a distilled stage.
        checkpoints: path or URL of the stage's checkpoints, which all workers reach; its name tells everything apart
            that the stage depends on.
    """

    start: EvaluateJob
    train: Place
    config: TrainConfig
    metrics: str
    run: str
    stage: str
    checkpoints: str
    run_identity: str = ""
    stage_identity: str = ""
    recipe: dict[str, Any] = field(default_factory=dict)
    tracking: TrackingConfig = field(default_factory=TrackingConfig)
    teacher: str | None = None


def train_on_workers(job: TrainJob, cluster: ClusterConfig) -> None:
    """Train on Ray workers; `bundle/` and `evaluation/` lie at the job's output afterwards.

    An interrupted call goes on from the job's last checkpoint; after a finished one only the evaluation is left to do
    again.

    Raises:
        Interrupted: by SIGINT or SIGTERM; the state is kept.
        NonFiniteLoss: a loss is no number; its batch lies in `failures/` beside the job's metrics.
        OutOfMemory: a worker or its machine had too little; names smaller batches.
        TrainError: why else a worker failed.
    """
    folder = location(job.checkpoints)
    run_on_workers(_train, job, cluster, folder.parent, folder.name, stoppable=True, less_memory=_smaller_batches)


def evaluate_on_workers(job: EvaluateJob, cluster: ClusterConfig, checkpoints: UPath, name: str) -> None:
    """Evaluate on Ray workers; `evaluation/` lies at the job's output afterwards."""
    run_on_workers(_evaluate, job, cluster, checkpoints, name, less_memory=_smaller_evaluation)


def _smaller_batches(job: TrainJob) -> str:
    images = noted_batch_size(location(job.start.output)) or job.config.batch_size
    batch = f"set batch_size: {images // 2}" if isinstance(images, int) and images > 1 else "take a smaller image_size"
    return f"{batch} to begin anew; to go on from the last checkpoint {_smaller_evaluation(job.start)}"


def _smaller_evaluation(job: EvaluateJob) -> str:
    images = job.config.batch_size
    return f"{FEWER_WORKERS} or set evaluation.batch_size: {images // 2}" if images > 1 else FEWER_WORKERS


def _train(job: TrainJob, workers: Workers) -> None:
    bundle, validation = open_bundle(job.start.model), open_images(job.start.validation)
    if job.config.from_scratch:
        initialize(bundle.network, job.config.seed)
    train = open_images(job.train)
    network = quantized_start(bundle.network, job.config, partial(image_batches, train, bundle.image_size))
    output = location(job.start.output)
    teacher = _teacher(job, bundle, workers)  # first, so that what it takes is no longer free memory
    job = replace(job, config=settle_batch_size(network, job.config, bundle.image_size, workers, output))
    trainer = Trainer(network, train, job.config, bundle.image_size, workers, job.start.threads, teacher)
    resuming = Resuming(trainer, location(job.checkpoints))
    with _tracker(job, workers) as tracker:
        if workers.first:
            _announce(trainer, job)
        with failed_batch_saved(trainer, location(job.metrics).parent / FAILURES_FOLDER / job.stage):
            _run_epochs(trainer, job, validation, tracker, resuming)
    evaluation = _accuracy_of(trainer, job.start, validation, half=None, last=True)
    kept, other = trainer.best.kept(trainer.average.network, trainer.epoch)
    if kept.name == "best":
        evaluation = _evaluated(kept.network, trainer, job.start, validation)
    if evaluation is None:
        return
    if other is not None:
        found = f"best mAP {trainer.best.map:.3f} after epoch {trainer.best.epoch} of {trainer.epoch}"
        say(f"{job.stage}: {found}; the bundle is the {kept.name} network, the {other.name} one lies in {other.name}/")
        stage = {"id": job.stage, "kind": "train", "config": job.config.model_dump(mode="json"), "epoch": other.epoch}
        replace(bundle.followed_by(other.network.cpu()), stage=stage).save(output / other.name)
    bundle.followed_by(kept.network.cpu()).save(output / BUNDLE_FOLDER)
    save_evaluation(evaluation, validation, output / EVALUATION_FOLDER)


def _teacher(job: TrainJob, student: Bundle, workers: Workers) -> Teacher | None:
    config = job.config.distillation
    if config is None:
        return None
    assert job.teacher is not None
    teacher = teacher_of(student, open_bundle(job.teacher), config)
    teacher.network.to(workers.device)
    return teacher


def _run_epochs(
    trainer: Trainer, job: TrainJob, validation: Images, tracker: Tracker | None, resuming: Resuming
) -> None:
    while not trainer.finished:
        with lack_of_memory_explained(trainer.network, trainer.config, trainer.image_size, trainer.workers):
            summary = trainer.run_epoch(resuming.after_step)
        line: dict[str, Any] = {"epoch": trainer.epoch, "epochs": job.config.epochs, **vars(summary)}
        line["step"] = trainer.epoch * trainer.optimizer_steps
        if job.config.evaluates_after(trainer.epoch - 1):
            evaluation = _accuracy_of(trainer, job.start, validation, half=trainer.precision.half)
            if evaluation is not None:
                line |= _accuracies(evaluation.metrics)
        if gauge := trainer.gauge():
            line["gauge"] = gauge
        line["seconds"] = resuming.elapsed
        line["seconds_left"] = resuming.seconds_left
        if tracker is not None:
            tracker.log(line)
        ray.train.report(summary.loss)  # what Ray shows of a run; checkpoints are our own
        resuming.after_epoch()
    if trainer.workers.first and trainer.epoch < job.config.epochs:
        given_up = f"no better mAP in {job.config.patience} evaluations, stopped"
        reason = given_up if trainer.best.given_up else "as sparse as asked for"
        say(f"{job.stage}: {reason} after {trainer.epoch} of {job.config.epochs} epochs")


def _accuracy_of(
    trainer: Trainer, job: EvaluateJob, validation: Images, half: torch.dtype | None, last: bool = False
) -> Evaluation | None:
    """Evaluation of the averaged network by all workers; only the first one gets it.

    Raises:
        NonFiniteLoss: the weights became so large that the network gives NaN or infinity.
    """
    with trainer.judged(last) as network:
        evaluation = _evaluated(network, trainer, job, validation, half)
        trainer.best.see(network, trainer.epoch, None if evaluation is None else evaluation.metrics.map)
    return evaluation


def _evaluated(
    network: Network, trainer: Trainer, job: EvaluateJob, validation: Images, autocast: torch.dtype | None = None
) -> Evaluation | None:
    try:
        return _by_all(trainer.workers, network, validation, trainer.image_size, job, autocast)
    except NonFiniteOutput:
        raise NonFiniteLoss(f"the network's output is not finite after epoch {trainer.epoch}; {REMEDY}") from None


def _by_all(
    workers: Workers,
    network: Network,
    validation: Images,
    image_size: tuple[int, int],
    job: EvaluateJob,
    autocast: torch.dtype | None = None,
) -> Evaluation | None:
    """Evaluation by all workers; only the first one gets it."""
    return evaluate(
        network,
        validation,
        image_size,
        job.config,
        rank=workers.rank,
        world_size=workers.size,
        gather=workers.gather,
        device=workers.device,
        autocast=autocast,
        threads=job.threads,
        max_detections=job.max_detections,
        tell=say,
    )


def _accuracies(metrics: Metrics) -> dict[str, Any]:
    """What a line of metrics.jsonl tells of an evaluation."""
    classes = {name: {"map": own.map, "map50": own.map50} for name, own in metrics.per_class.items() if own.objects}
    sources = {name: {"map": own.map, "map50": own.map50} for name, own in metrics.sources.items()}
    accuracies = {"map": metrics.map, "map50": metrics.map50, "per_class": classes}
    return accuracies | ({"sources": sources} if sources else {})


def _evaluate(job: EvaluateJob, workers: Workers) -> None:
    bundle, validation = open_bundle(job.model), open_images(job.validation)
    evaluation = _by_all(workers, bundle.network.to(workers.device), validation, bundle.image_size, job)
    if evaluation is not None:
        save_evaluation(evaluation, validation, location(job.output) / EVALUATION_FOLDER)


@contextmanager
def _tracker(job: TrainJob, workers: Workers) -> Iterator[Tracker | None]:
    """The stage's tracker in the first worker, nothing in the others."""
    if not workers.first:
        yield None
        return
    stage = TrackedStage(
        location(job.metrics),
        job.run,
        job.stage,
        run_identity=job.run_identity,
        stage_identity=job.stage_identity,
        settings=job.config.model_dump(mode="json"),
        recipe=job.recipe,
    )
    with Tracker(stage, job.tracking) as tracker:
        yield tracker


def _announce(trainer: Trainer, job: TrainJob) -> None:
    say(
        f"{job.stage}: {trainer.loader.samples} images, "
        f"batch {job.config.images_a_batch} × {job.config.accumulate}, "
        f"{trainer.workers.size} worker(s) on {trainer.device.type}, "
        f"{trainer.precision.name}, {trainer.schedule.steps} steps"
    )
    if trainer.frozen.layers:
        say(f"{job.stage}: frozen: layers {trainer.frozen.described}")
    sparse = trainer.sparse
    if sparse is None:
        return
    say(f"{job.stage}: {len(sparse.candidates)} sparse layers, a γ travels about {sparse.gamma_travel:.2f}")
    if sparse.gamma_travel < ENOUGH_TRAVEL:
        say(f"{job.stage}: warning: under {ENOUGH_TRAVEL:g} little becomes sparse; take factor: auto or a larger one")
