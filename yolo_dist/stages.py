"""What each kind of stage does: one bundle in, a folder with the next bundle and its evaluation out."""

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, get_args

from upath import UPath

from yolo_dist.bundle import QUANTIZATION_FILE, RECORD_FILE, Bundle, open_bundle, read_record
from yolo_dist.compress.pruning import PruneConfig, Pruned, PrunePlan, prune
from yolo_dist.compress.pruning.prediction import IMAGES, describe_damage, predict
from yolo_dist.compress.pruning.proof_table import as_markdown, sentences
from yolo_dist.compress.pruning.readiness import Damage
from yolo_dist.compress.pruning.selection import Accuracy
from yolo_dist.compress.pruning.trials import Outcome, TrialSetup, evaluate_plans
from yolo_dist.compress.quantization import QuantizeConfig, QuantizedNetwork, calibrate, quantize
from yolo_dist.compress.quantization.noise import measure_noise
from yolo_dist.config import Config
from yolo_dist.console import say
from yolo_dist.darknet.shapes import count_macs
from yolo_dist.data.loader import image_batches, images_of
from yolo_dist.data.mixture import Images, Place, open_images
from yolo_dist.evaluate.evaluator import EvaluationConfig, evaluate
from yolo_dist.evaluate.samples import EVALUATION_FILE, save_evaluation
from yolo_dist.export.onnx import ExportConfig, export_onnx
from yolo_dist.export.runtime import MODEL_FILE, load_exported, open_exported
from yolo_dist.export.write import EXPORT_FILE, export_file
from yolo_dist.storage import local_copy, publish, publish_folder, remove
from yolo_dist.train.batch_size import noted_batch_size
from yolo_dist.train.best import Keep
from yolo_dist.train.calibration import calibration_losses
from yolo_dist.train.cluster import ClusterConfig
from yolo_dist.train.config import TrainConfig
from yolo_dist.train.ray_trainer import (
    BUNDLE_FOLDER,
    EVALUATION_FOLDER,
    EvaluateJob,
    TrainJob,
    evaluate_on_workers,
    train_on_workers,
)
from yolo_dist.train.tracking import TrackingConfig

PROOF_IMAGES, PROOF_MACS = 8, 60e9
PROOF_FILE, PROOF_PAGE, PLAN_FILE, NOISE_FILE = "proof.json", "proof.md", "plan.json", "noise.json"
NOISE_IMAGES = 8


@dataclass(frozen=True)
class StageContext:
    """Where a stage finds its input and leaves its output.

    Attributes:
        run: name of the run.
        stage: id of the stage.
        start: URL of the bundle it starts from.
        output: URL of the folder that gets `bundle/`, `evaluation/` and what else the stage has to show.
        train, validation: where the images lie.
        metrics: URL of the run's `metrics.jsonl`.
        checkpoints: where checkpoints are kept, under `name`, until the stage is published.
        name: identifies everything the stage depends on.
        max_detections: detections an image, as the dataset's protocol has it.
        teacher: URL of the bundle that teaches a distilled stage.
        run_identity: tells trackers this run from others of its name.
        recipe: what trackers are told of the run's recipe.
    """

    run: str
    stage: str
    start: UPath
    output: UPath
    train: Place
    validation: Place
    metrics: UPath
    checkpoints: UPath
    name: str
    max_detections: int
    evaluation: EvaluationConfig
    cluster: ClusterConfig
    tracking: TrackingConfig
    teacher: UPath | None = None
    run_identity: str = ""
    recipe: dict[str, Any] = field(default_factory=dict)

    def evaluate_job(self, model: UPath) -> EvaluateJob:
        """Evaluate `model` on the validation split into this stage's output."""
        return EvaluateJob(
            model=str(model),
            validation=self.validation,
            output=str(self.output),
            config=self.evaluation,
            max_detections=self.max_detections,
            threads=self.cluster.cpus_per_worker,
        )


def train_stage(context: StageContext, config: TrainConfig) -> None:
    """Train from the start bundle; the averaged network is what comes out."""
    job = TrainJob(
        start=context.evaluate_job(context.start),
        train=context.train,
        config=config,
        metrics=str(context.metrics),
        checkpoints=str(context.checkpoints / context.name),
        run=context.run,
        stage=context.stage,
        run_identity=context.run_identity,
        stage_identity=context.name,
        recipe=context.recipe,
        tracking=context.tracking,
        teacher=None if context.teacher is None else str(context.teacher),
    )
    train_on_workers(job, context.cluster)
    _report_noise(context)


def prune_stage(context: StageContext, config: PruneConfig) -> None:
    """Prune the start bundle, prove the result, evaluate it."""
    start = open_bundle(context.start)
    validation, train = open_images(context.validation), open_images(context.train)
    trials = TrialSetup(
        start.network,
        start.image_size,
        validation,
        train,
        reestimate_images=config.reestimate_images,
        compensate=config.compensate,
        evaluation=context.evaluation,
        max_detections=context.max_detections,
    )

    workers = context.cluster.fewest_workers

    def accuracy(plans: Sequence[PrunePlan]) -> Sequence[Outcome]:
        return evaluate_plans(trials, plans, workers)

    def damage(plan: PrunePlan) -> str:
        few = replace(trials, validation=validation.first(IMAGES))
        losses = calibration_losses(train, start.image_size, config.calibration_images)
        return describe_damage(predict(few, config, plan, workers, calibration=losses), plan, len(few.validation))

    pruned = prune_with_shards(start, config, validation, train, accuracy, damage)
    proof = pruned.proof
    say(f"{context.stage}: {proof.parameters.before:,.0f} → {proof.parameters.after:,.0f} parameters")
    for sentence in sentences(proof):
        say(f"{context.stage}: {sentence}")
    if pruned.warning:
        say(f"{context.stage}: {pruned.warning}")
    model = context.output / BUNDLE_FOLDER
    start.followed_by(pruned.network, pruned.lineage).save(model)
    publish(context.output / PLAN_FILE, json.dumps(pruned.plan.as_json()))
    evaluate_on_workers(context.evaluate_job(model), context.cluster, context.checkpoints, context.name)
    before, after = (start.metrics or {}).get("map50"), read_evaluation(context.output)["map50"]
    if before is not None and after is not None:
        proof = proof.with_map50(before, after)
    publish(context.output / PROOF_FILE, str(proof))
    publish(context.output / PROOF_PAGE, as_markdown(proof))


def export_stage(context: StageContext, config: ExportConfig) -> None:
    """Write the start bundle as a file, and evaluate it in ONNX Runtime: the boxes of the same network, whatever the
    file itself gives, on images of its one size."""
    start, validation = open_bundle(context.start), open_images(context.validation)
    record = export_file(start, config, context.output / MODEL_FILE)
    publish(context.output / EXPORT_FILE, record.model_dump_json(indent=2))
    threads = context.cluster.cpus_per_worker
    if config.output == "boxes":
        exported = open_exported(context.output / MODEL_FILE, threads)
    else:
        boxes = export_onnx(start, config.model_copy(update={"output": "boxes"}))
        exported = load_exported(boxes.SerializeToString(), context.stage, threads)
    evaluation = evaluate(
        exported,
        validation,
        start.image_size,
        context.evaluation.model_copy(update={"augment": None}),
        threads=threads,
        max_detections=context.max_detections,
        tell=say,
    )
    assert evaluation is not None
    save_evaluation(evaluation, validation, context.output / EVALUATION_FOLDER)


def prune_with_shards(
    start: Bundle,
    config: PruneConfig,
    validation: Images,
    train: Images,
    accuracy: Accuracy | None = None,
    damage: Damage | None = None,
) -> Pruned:
    """Prune a bundle with real images: validation ones for the proof, training ones for statistics and importance."""
    return prune(
        start.network,
        config,
        images_of(validation, start.image_size, _proof_images(start)),
        start.image_size,
        images_of(train, start.image_size, config.reestimate_images).split(PROOF_IMAGES),
        accuracy=accuracy,
        damage=damage,
        calibration=calibration_losses(train, start.image_size, config.calibration_images),
    )


def _proof_images(start: Bundle) -> int:
    """As many as a large network sees in seconds, but at least two."""
    return max(2, min(PROOF_IMAGES, int(PROOF_MACS / count_macs(start.network.cfg, start.image_size))))


def quantize_stage(context: StageContext, config: QuantizeConfig) -> None:
    """Quantise the start bundle without training, and evaluate it."""
    start = open_bundle(context.start)
    network = quantize(start.network, config.settled)
    images = image_batches(open_images(context.train), start.image_size, config.calibration_images)
    calibrate(network, images, config.ranges)
    model = context.output / BUNDLE_FOLDER
    start.followed_by(network).save(model)
    evaluate_on_workers(context.evaluate_job(model), context.cluster, context.checkpoints, context.name)
    _report_noise(context)


def _report_noise(context: StageContext) -> None:
    """Leave beside a quantised network what quantisation adds to each of its layers, on a few validation images."""
    record, _ = read_record(context.output / BUNDLE_FOLDER)
    if QUANTIZATION_FILE not in record.sha256:
        return
    made = open_bundle(context.output / BUNDLE_FOLDER)
    assert isinstance(made.network, QuantizedNetwork)
    images = images_of(open_images(context.validation), made.image_size, NOISE_IMAGES)
    report = measure_noise(made.network, images.split(1))
    publish(context.output / NOISE_FILE, json.dumps(report.as_json()))
    worst = min(report.heads, key=lambda head: head.decibels)
    say(f"{context.stage}: head {worst.layer} is {worst.decibels:.0f} dB above the noise of quantisation")


def save_pruned(start: Bundle, pruned: Pruned, config: PruneConfig, target: UPath) -> None:
    """Publish a pruned bundle with its plan and proof."""
    stage = {"id": "pruned", "kind": "prune", "config": config.model_dump(mode="json")}
    bundle = replace(start.followed_by(pruned.network, pruned.lineage), stage=stage)
    with publish_folder(target, last=RECORD_FILE) as folder:
        bundle.write(folder)
        (folder / PLAN_FILE).write_text(json.dumps(pruned.plan.as_json()))
        (folder / PROOF_FILE).write_text(str(pruned.proof))
        (folder / PROOF_PAGE).write_text(as_markdown(pruned.proof))


def settings_used(config: Config, output: UPath) -> dict[str, Any]:
    """A stage's configuration as it was in the end, with the batch size that `auto` came to."""
    batch_size = noted_batch_size(output)
    return config.model_dump(mode="json") | ({} if batch_size is None else {"batch_size": batch_size})


def read_evaluation(output: UPath) -> dict[str, Any]:
    """The metrics that a stage left in its output."""
    metrics: dict[str, Any] = json.loads((output / EVALUATION_FOLDER / EVALUATION_FILE).read_text())
    return metrics


def collect(output: UPath, bundle: Bundle | None, target: UPath, records: dict[str, str]) -> None:
    """Publish a stage's output as one folder: the bundle's files or the exported one, a second bundle if there is one,
    evaluation, proof and `records` (name → text)."""
    last = next(reversed(records))
    if not (target / last).exists():
        remove(target)  # what is left of a damaged stage
    with local_copy(output) as source, publish_folder(target, last=last) as folder:
        shutil.copytree(source / EVALUATION_FOLDER, folder, dirs_exist_ok=True)
        for path in (*source.glob("*.json"), *source.glob(PROOF_PAGE), *source.glob(MODEL_FILE)):
            shutil.copy(path, folder)
        for name in get_args(Keep):
            if (source / name).is_dir():
                shutil.copytree(source / name, folder / name)
        if bundle is not None:
            bundle.write(folder)
        for name, text in records.items():
            (folder / name).write_text(text)
