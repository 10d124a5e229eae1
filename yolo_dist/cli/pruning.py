"""The command `prune`: what a cut would cost, the cut, its proof; or only a look at the channel graph.

What takes seconds to import is imported where it is used, so that help is quick.
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from yolo_dist.cli import show
from yolo_dist.cli.explain import explain as show_graph
from yolo_dist.cli.options import (
    CfgFile,
    Dataset,
    Json,
    Model,
    OptionalShards,
    TrainSplit,
    ValidationSplit,
    Weights,
    Workers,
    detections_that_count,
    load_model,
)
from yolo_dist.config import validate
from yolo_dist.data.shards import open_split
from yolo_dist.errors import ConfigError
from yolo_dist.object_store import is_remote
from yolo_dist.storage import location, require_ours

if TYPE_CHECKING:
    from yolo_dist.compress.importance import BatchLoss
    from yolo_dist.compress.pruning.plan import PrunePlan
    from yolo_dist.compress.pruning.prediction import Prediction
    from yolo_dist.compress.pruning.proof import Proof
    from yolo_dist.compress.pruning.trials import Outcome


def prune(
    shards: OptionalShards = None,
    out: Annotated[
        str | None, typer.Option("--out", help="Folder or URL of the pruned bundle.", show_default=False)
    ] = None,
    model: Model = None,
    cfg: CfgFile = None,
    weights: Weights = None,
    dataset: Dataset = None,
    split: ValidationSplit = "val",
    train_split: TrainSplit = "train",
    method: Annotated[
        str,
        typer.Option(
            "--method",
            help="What competes and what stays: normal, regular, shortcut, slim, layer, layer-channel, "
            "layer-channel-regular, layerwise or eagle-eye.",
        ),
    ] = "normal",
    importance: Annotated[
        str, typer.Option("--importance", help="What a channel is worth: gamma, gamma-beta, l1, l2, taylor or random.")
    ] = "gamma",
    percent: Annotated[
        float | None, typer.Option("--percent", help="Share of candidates to cut; 0.5 by default.", show_default=False)
    ] = None,
    percents: Annotated[
        str | None,
        typer.Option("--percents", metavar="P,P,…", help="Shares of layerwise, one a set.", show_default=False),
    ] = None,
    scope: Annotated[str, typer.Option("--scope", help="classic or full.")] = "classic",
    shortcuts: Annotated[
        int | None, typer.Option("--shortcuts", help="Residual blocks that a layer method removes.", show_default=False)
    ] = None,
    round_to: Annotated[
        int | None, typer.Option("--round-to", help="Round channels up to a multiple.", show_default=False)
    ] = None,
    layer_keep: Annotated[
        float | None,
        typer.Option("--layer-keep", help="Least share of a layer's channels that slim leaves.", show_default=False),
    ] = None,
    target_parameters: Annotated[
        float | None,
        typer.Option("--target-parameters", help="Parameters that may stay; up to 1 a share.", show_default=False),
    ] = None,
    target_macs: Annotated[
        float | None, typer.Option("--target-macs", help="MACs that may stay; up to 1 a share.", show_default=False)
    ] = None,
    target_latency: Annotated[
        float | None, typer.Option("--target-latency-ms", help="Milliseconds an image.", show_default=False)
    ] = None,
    max_map_drop: Annotated[
        float | None, typer.Option("--max-map-drop", help="Loss of mAP50 that is allowed.", show_default=False)
    ] = None,
    candidates: Annotated[
        int | None, typer.Option("--candidates", help="Shapes that eagle-eye draws.", show_default=False)
    ] = None,
    reestimate: Annotated[int, typer.Option("--reestimate-images", help="Training images for statistics.")] = 0,
    compensate: Annotated[bool, typer.Option(help="Mend what cut channels and blocks still emitted.")] = True,
    calibration: Annotated[
        int | None,
        typer.Option("--calibration-images", help="Training images for importance taylor.", show_default=False),
    ] = None,
    seed: Annotated[int, typer.Option("--seed", help="Of eagle-eye's shapes and random importance.")] = 0,
    force: Annotated[bool, typer.Option("--force", help="Cut although the network is not sparse enough.")] = False,
    predict_images: Annotated[
        int, typer.Option("--predict-images", min=0, help="Validation images to predict the damage on; 0 does not.")
    ] = 128,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Predict the damage and write nothing.")] = False,
    workers: Workers = 0,
    explain: Annotated[
        bool,
        typer.Option("--explain", help="Cut nothing; say what may be cut and why not the rest. Needs no --weights."),
    ] = False,
    as_json: Json = False,
) -> None:
    """Predict what a cut costs without fine-tuning, cut channels, and prove the result on validation images.

    Example: yolo-dist prune --model runs/bccd/stages/sparse --shards data/bccd --percent 0.7 --out runs/pruned

    With --explain it shows the channel graph of a bundle, a cfg or a network of the zoo, and of a bundle with --percent
    what the method would keep: yolo-dist prune --explain --model yolov4
    """
    from yolo_dist.bundle import RECORD_FILE, require_classes
    from yolo_dist.compress.pruning import PruneConfig
    from yolo_dist.compress.pruning.method import TARGETS
    from yolo_dist.compress.pruning.prediction import describe_damage, predict
    from yolo_dist.compress.pruning.prune import choose_plan
    from yolo_dist.compress.pruning.trials import TrialSetup, evaluate_plans
    from yolo_dist.stages import prune_with_shards, save_pruned
    from yolo_dist.train.calibration import calibration_losses

    values = {
        "method": method,
        "importance": importance,
        "percent": percent,
        "percents": percents and percents.split(","),
        "scope": scope,
        "shortcuts": shortcuts,
        "round_to": round_to,
        "layer_keep": layer_keep,
        "target_parameters": target_parameters,
        "target_macs": target_macs,
        "target_latency_ms": target_latency,
        "max_map_drop": max_map_drop,
        "candidates": candidates,
        "seed": seed,
        "reestimate_images": reestimate,
        "calibration_images": calibration,
        "compensate": compensate,
        "force": force,
    }
    config = validate(PruneConfig, {key: value for key, value in values.items() if value is not None}, "options")
    if explain:
        if targets := [name for name in TARGETS if values[name] is not None]:
            raise ConfigError("options", [f"--explain plans a percent, not {targets[0]}; take --dry-run"])
        planned = any(amount is not None for amount in (percent, percents, shortcuts))
        show_graph(model, cfg, weights, config, planned=planned, as_json=as_json)
        return
    if shards is None or (out is None and not dry_run):
        raise ConfigError(
            "options",
            ["give --shards and --out (or --dry-run), or --explain to only look at what may be cut"],
        )
    if dry_run and not predict_images:
        raise ConfigError("options", ["--dry-run has nothing to do with --predict-images 0"])
    validation = open_split(shards, split)
    statistics = open_split(shards, train_split) if config.needs_training_images else validation
    bundle = load_model(model, cfg, weights, dataset, validation.classes)
    require_classes(bundle, validation.classes, shards)
    trials = TrialSetup(
        bundle.network,
        bundle.image_size,
        validation,
        statistics,
        reestimate_images=config.reestimate_images,
        compensate=config.compensate,
        max_detections=detections_that_count(dataset, validation.manifest.dataset),
    )

    setup = replace(trials, validation=validation.first(predict_images))

    def accuracy(plans: "Sequence[PrunePlan]") -> "Sequence[Outcome]":
        with show.progress("evaluate") as progress:
            return evaluate_plans(trials, plans, workers, progress, "--workers")

    def losses() -> "Iterable[BatchLoss]":
        return calibration_losses(statistics, bundle.image_size, config.calibration_images)

    def predictions_of(plan: "PrunePlan") -> "list[Prediction]":
        with show.progress("predict") as progress:
            return predict(setup, config, plan, workers, progress, "--workers", losses())

    def damage(plan: "PrunePlan") -> str:
        return describe_damage(predictions_of(plan), plan, len(setup.validation))

    if out is None or dry_run:
        plan = choose_plan(bundle.network, config, bundle.image_size, accuracy, losses())
        _show_predictions(predictions_of(plan), len(setup.validation), as_json)
        return
    if not is_remote(target := location(out)):
        require_ours(Path(target.path), RECORD_FILE)  # before minutes of work, and again when it is written
    pruned = prune_with_shards(bundle, config, validation, statistics, accuracy, damage if predict_images else None)
    predictions = predictions_of(pruned.plan) if predict_images else []
    if predictions and not as_json:
        _show_predictions(predictions, len(setup.validation))
    save_pruned(bundle, pruned, config, target)
    if pruned.warning:
        typer.echo(pruned.warning, err=True)
    if as_json:
        show.as_json(pruned.proof.as_json() | {"prediction": [one.as_json() for one in predictions]})
        return
    _show_proof(pruned.proof)
    typer.echo(f"saved to {out}")


def _show_predictions(predictions: "list[Prediction]", images: int, as_json: bool = False) -> None:
    if as_json:
        show.as_json({"prediction": [one.as_json() for one in predictions]})
        return
    rows = []
    for one in predictions:
        found = one.outcome
        numbers = (
            ("–",) * 3 if found is None else (f"{found.parameters:,}", *map(show.decimal, (found.map50, found.map)))
        )
        rows.append((f"{one.percent:g}", *numbers))
    title = f"Without fine-tuning, on {images} validation images"
    show.table(("percent", "parameters", "mAP50", "mAP"), rows, title)
    for remark in (one.remark for one in predictions if one.remark):
        typer.echo(remark)


def _show_proof(proof: "Proof") -> None:
    from yolo_dist.compress.pruning.proof_table import COLUMNS, change_rows, sentences

    show.table(COLUMNS, change_rows(proof))
    for sentence in sentences(proof):
        typer.echo(sentence)
