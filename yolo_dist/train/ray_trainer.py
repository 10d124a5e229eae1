"""What Ray Train's workers do: train a stage, or evaluate a bundle."""

import io
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import ray.train
import torch
from upath import UPath

from yolo_dist.bundle import open_bundle
from yolo_dist.darknet.network import initialize
from yolo_dist.data.loader import image_batches
from yolo_dist.data.mixture import Images, Place, open_images
from yolo_dist.errors import NonFiniteLoss, NonFiniteOutput
from yolo_dist.evaluate.evaluator import Evaluation, EvaluationConfig, evaluate
from yolo_dist.evaluate.metrics import Metrics
from yolo_dist.evaluate.samples import save_evaluation
from yolo_dist.storage import location
from yolo_dist.train.batch_size import lack_of_memory_explained, settle_batch_size
from yolo_dist.train.cluster import ClusterConfig, run_on_workers
from yolo_dist.train.config import TrainConfig
from yolo_dist.train.loop import Trainer
from yolo_dist.train.quantized import quantized_start
from yolo_dist.train.tracking import TrackedStage, Tracker, TrackingConfig, say
from yolo_dist.train.workers import Workers

STATE_FILE = "state.pt"
BUNDLE_FOLDER, EVALUATION_FOLDER = "bundle", "evaluation"
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
        run_identity, stage_identity: see `TrackedStage`.
    """

    start: EvaluateJob
    train: Place
    config: TrainConfig
    metrics: str
    run: str
    stage: str
    run_identity: str = ""
    stage_identity: str = ""
    tracking: TrackingConfig = field(default_factory=TrackingConfig)


def train_on_workers(job: TrainJob, cluster: ClusterConfig, checkpoints: UPath, name: str) -> None:
    """Train on Ray workers; `bundle/` and `evaluation/` lie at the job's output afterwards.

    An interrupted call goes on from its last checkpoint when repeated with the same `name` and `checkpoints`; after
    a finished one only the evaluation is left to do again.

    Raises:
        NonFiniteLoss, TrainError: why a worker failed.
    """
    run_on_workers(_train, job, cluster, checkpoints, name)


def evaluate_on_workers(job: EvaluateJob, cluster: ClusterConfig, checkpoints: UPath, name: str) -> None:
    """Evaluate on Ray workers; `evaluation/` lies at the job's output afterwards."""
    run_on_workers(_evaluate, job, cluster, checkpoints, name)


def _train(job: TrainJob, workers: Workers) -> None:
    bundle, validation = open_bundle(job.start.model), open_images(job.start.validation)
    if job.config.from_scratch:
        initialize(bundle.network, job.config.seed)
    train = open_images(job.train)
    network = quantized_start(bundle.network, job.config, partial(image_batches, train, bundle.image_size))
    output = location(job.start.output)
    job = replace(job, config=settle_batch_size(network, job.config, bundle.image_size, workers, output))
    trainer = Trainer(network, train, job.config, bundle.image_size, workers, job.start.threads)
    _restore(trainer)
    with _tracker(job, workers) as tracker:
        if workers.first:
            _announce(trainer, job)
        _run_epochs(trainer, job, validation, tracker)
    evaluation = _accuracy_of(trainer, job.start, validation, autocast=False, last=True)
    if evaluation is None:
        return
    bundle.followed_by(trainer.average.network.cpu()).save(output / BUNDLE_FOLDER)
    save_evaluation(evaluation, validation, output / EVALUATION_FOLDER)


def _run_epochs(trainer: Trainer, job: TrainJob, validation: Images, tracker: Tracker | None) -> None:
    started, first = time.perf_counter(), trainer.epoch
    while not trainer.finished:
        with lack_of_memory_explained(trainer.network, trainer.config, trainer.image_size, trainer.workers):
            summary = trainer.run_epoch()
        line: dict[str, Any] = {"epoch": trainer.epoch, "epochs": job.config.epochs, **vars(summary)}
        line["step"] = trainer.epoch * trainer.optimizer_steps
        if job.config.evaluates_after(trainer.epoch - 1):
            evaluation = _accuracy_of(trainer, job.start, validation, autocast=trainer.autocast)
            if evaluation is not None:
                line |= _accuracies(evaluation.metrics)
        if gauge := trainer.gauge():
            line["gauge"] = gauge
        line["seconds"] = time.perf_counter() - started
        line["seconds_left"] = line["seconds"] / (trainer.epoch - first) * (job.config.epochs - trainer.epoch)
        if tracker is not None:
            tracker.log(line)
        _report(trainer, job.config, summary.loss)
    if trainer.workers.first and trainer.epoch < job.config.epochs:
        say(f"{job.stage}: as sparse as asked for after {trainer.epoch} of {job.config.epochs} epochs")


def _accuracy_of(
    trainer: Trainer, job: EvaluateJob, validation: Images, autocast: bool, last: bool = False
) -> Evaluation | None:
    """Evaluation of the averaged network by all workers; only the first one gets it.

    Raises:
        NonFiniteLoss: the weights became so large that the network gives NaN or infinity.
    """
    try:
        with trainer.judged(last) as network:
            return evaluate(
                network,
                validation,
                trainer.image_size,
                job.config,
                rank=trainer.workers.rank,
                world_size=trainer.workers.size,
                gather=trainer.workers.gather,
                device=trainer.device,
                autocast=torch.bfloat16 if autocast else None,
                threads=job.threads,
                max_detections=job.max_detections,
            )
    except NonFiniteOutput:
        raise NonFiniteLoss(
            f"the network's output is not finite after epoch {trainer.epoch}; lower optimizer.learning_rate, "
            "or switch autocast off"
        ) from None


def _accuracies(metrics: Metrics) -> dict[str, Any]:
    """What a line of metrics.jsonl tells of an evaluation."""
    classes = {name: {"map": own.map, "map50": own.map50} for name, own in metrics.per_class.items() if own.objects}
    sources = {name: {"map": own.map, "map50": own.map50} for name, own in metrics.sources.items()}
    accuracies = {"map": metrics.map, "map50": metrics.map50, "per_class": classes}
    return accuracies | ({"sources": sources} if sources else {})


def _evaluate(job: EvaluateJob, workers: Workers) -> None:
    bundle, validation = open_bundle(job.model), open_images(job.validation)
    evaluation = evaluate(
        bundle.network.to(workers.device),
        validation,
        bundle.image_size,
        job.config,
        rank=workers.rank,
        world_size=workers.size,
        gather=workers.gather,
        device=workers.device,
        threads=job.threads,
        max_detections=job.max_detections,
    )
    if evaluation is not None:
        save_evaluation(evaluation, validation, location(job.output) / EVALUATION_FOLDER)


def _report(trainer: Trainer, config: TrainConfig, loss: dict[str, float]) -> None:
    """Tell Ray that an epoch is over, with a checkpoint from the first worker when one is due."""
    due = trainer.epoch % config.checkpoint_every == 0 or trainer.finished
    if not (due and trainer.workers.first):
        ray.train.report(loss)
        return
    with tempfile.TemporaryDirectory(prefix="yolo-dist-") as folder:
        torch.save(trainer.state(), Path(folder) / STATE_FILE)
        ray.train.report(loss, checkpoint=ray.train.Checkpoint.from_directory(folder))


def _restore(trainer: Trainer) -> None:
    checkpoint = ray.train.get_checkpoint()
    if checkpoint is None:
        return
    with checkpoint.as_directory() as folder:
        content = (Path(folder) / STATE_FILE).read_bytes()
    trainer.restore(torch.load(io.BytesIO(content), map_location=trainer.device, weights_only=True))
    if trainer.workers.first:
        say(f"going on after epoch {trainer.epoch} from the last checkpoint")


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
    )
    with Tracker(stage, job.tracking) as tracker:
        yield tracker


def _announce(trainer: Trainer, job: TrainJob) -> None:
    precision = "bfloat16" if trainer.autocast else "float32"
    say(
        f"{job.stage}: {len(trainer.loader.shards)} images, "
        f"batch {job.config.images_a_batch} × {job.config.accumulate}, "
        f"{trainer.workers.size} worker(s) on {trainer.device.type}, {precision}, {trainer.schedule.steps} steps"
    )
    sparse = trainer.sparse
    if sparse is None:
        return
    say(f"{job.stage}: {len(sparse.candidates)} sparse layers, a γ travels about {sparse.gamma_travel:.2f}")
    if sparse.gamma_travel < ENOUGH_TRAVEL:
        say(f"{job.stage}: warning: under {ENOUGH_TRAVEL:g} little becomes sparse; take factor: auto or a larger one")
