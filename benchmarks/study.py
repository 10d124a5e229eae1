"""What methods are worth: a recipe run with several seeds, then measured.

Run: python benchmarks/study.py launch/bccd-pruning.yaml --seeds 3
     python benchmarks/study.py launch/bccd-distillation.yaml --repeat all --keep base pruned --against alone
Interrupted, the same command goes on where it stopped; several at once, each with seeds of its own (`--first-seed`), do
stages that they have in common once. With `--measure` it trains nothing and measures what is there.
"""

import argparse
from collections.abc import Collection, Iterable
from math import inf
from pathlib import Path
from typing import Any

from measure import publish_result
from study_figures import cuts_table, differences_table, picture, repeated_table

from yolo_dist import pipeline
from yolo_dist.bundle import Bundle, open_bundle
from yolo_dist.compress.pruning.proof import weight_bytes
from yolo_dist.darknet.shapes import count_macs, count_parameters
from yolo_dist.evaluate.latency import network_latency_ms
from yolo_dist.export.onnx import ExportConfig, export_onnx
from yolo_dist.export.runtime import ExportedModel, load_exported
from yolo_dist.recipe import Recipe, Stage, read_recipe
from yolo_dist.storage import location
from yolo_dist.tune.shared_stages import SharedStages

ROUNDS = 7
"""Of measuring latencies."""
PICTURES = Path(__file__).parents[1] / "docs" / "results"

DECIDING = ("small-tuned", "dense-tuned", "random-tuned", "scratch", "base-longer")
"""Stages of the pruning studies that every seed repeats, with those they start from and learn from; the others are run
with seed 0 alone."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", help="YAML file of a recipe")
    parser.add_argument("overrides", nargs="*", help="such as shards=data/bccd or cluster.workers=2")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument(
        "--repeat", nargs="+", default=DECIDING, help="stages for every seed, not only 0; `all` of them"
    )
    parser.add_argument("--keep", nargs="+", default=(), help="stages that all seeds share, as the recipe has them")
    parser.add_argument("--against", metavar="STAGE", help="also show what every stage gains over this one")
    parser.add_argument("--measure", action="store_true", help="measure what is there, train nothing")
    arguments = parser.parse_intermixed_args()
    seeds = range(arguments.first_seed, arguments.seeds)
    recipe = read_recipe(arguments.recipe, arguments.overrides)
    recipes = [with_seed(recipe, seed, arguments.repeat, arguments.keep) for seed in seeds]
    name = Path(arguments.recipe).stem
    if not arguments.measure:
        for recipe in recipes:
            pipeline.run(recipe, arguments.recipe, SharedStages(location(recipe.storage) / f"{name}-shared"))
    rows = measured(
        (seed, recipe, stage)
        for seed, recipe in zip(seeds, recipes, strict=True)
        for stage in recipe.stages
        if seed == seeds[0] or stage.id not in arguments.keep
    )
    print(f"{repeated_table(rows)}\n\n{cuts_table(rows, seeds[0])}\n")
    if arguments.against is not None:
        print(f"{differences_table(rows, arguments.against)}\n")
    picture(rows, PICTURES / f"{name}.png", name)
    print(f"written to {publish_result(f'study-{name}', {'recipe': arguments.recipe, 'rows': rows})}")


def with_seed(recipe: Recipe, seed: int, repeated: Collection[str], kept: Collection[str] = ()) -> Recipe:
    """The recipe under a name and with a seed of its own; of the stages all with seed 0, else those to repeat.

    Stages to keep are the same for every seed, and so are the first weights if there are any.
    """
    all_of_them = seed == 0 or "all" in repeated
    needed: set[str | None] = {stage.id for stage in recipe.stages} if all_of_them else set(repeated)
    stages = []
    for stage in reversed(recipe.stages):
        origin = recipe.start_of(stage)
        if stage.id in needed:
            needed |= {origin, recipe.teacher_stage_of(stage)}
            own_seed = {} if stage.id in kept else {"seed": seed}
            stages.append(stage.model_copy(update={"from_": origin, **own_seed}))
    update = {"name": f"{recipe.name}-{seed}", "stages": tuple(reversed(stages))} | ({} if kept else {"seed": seed})
    return recipe.model_copy(update=update)


def measured(stages: Iterable[tuple[int, Recipe, Stage]]) -> list[dict[str, Any]]:
    """Accuracy, size and latency of each stage that is there.

    Latencies are the fastest of several rounds through all stages: other programs slow some of them down.
    """
    bundles = [(seed, stage, bundle) for seed, recipe, stage in stages if (bundle := bundle_of(recipe, stage))]
    rows = [described(seed, stage, bundle) for seed, stage, bundle in bundles]
    exported = [float_file(bundle) for _, _, bundle in bundles]
    for _ in range(ROUNDS):
        for row, (_, _, bundle), file in zip(rows, bundles, exported, strict=True):
            torch_ms = network_latency_ms(bundle.network, bundle.image_size)
            row["torch_ms"] = min(row.get("torch_ms", inf), round(torch_ms, 3))
            row["onnxruntime_ms"] = min(row.get("onnxruntime_ms", inf), round(file.latency_ms(), 3))
    return rows


def bundle_of(recipe: Recipe, stage: Stage) -> Bundle | None:
    """What a stage of a run made; None where it is not there."""
    place = location(recipe.storage) / recipe.name / "stages" / stage.id
    if place.exists():
        return open_bundle(place)
    print(f"{recipe.name}: {stage.id} is missing")
    return None


def described(seed: int, stage: Stage, bundle: Bundle) -> dict[str, Any]:
    """Accuracy and size of what a stage made."""
    cfg, metrics = bundle.network.cfg, bundle.metrics
    assert metrics is not None
    return {
        "seed": seed,
        "stage": stage.id,
        "kind": stage.kind,
        "map50": round(metrics["map50"], 4),
        "map": round(metrics["map"], 4),
        "parameters": count_parameters(cfg),
        "macs": count_macs(cfg, bundle.image_size),
        "weight_bytes": weight_bytes(bundle.network),
    }


def float_file(bundle: Bundle) -> ExportedModel:
    """The network alone as ONNX Runtime has it, float32, one thread."""
    return load_exported(export_onnx(bundle, ExportConfig(output="raw")).SerializeToString(), "network")


if __name__ == "__main__":
    main()
