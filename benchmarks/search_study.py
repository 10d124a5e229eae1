"""Searches side by side: trials and hypervolume over time as a picture, and whether a front reaches hand-picked points.

All hypervolumes are taken against the same reference, the largest of those that the searches have themselves. Images
are as large as those of the hand-picked points.

Run: yolo-dist tune tune_spaces/bccd_factor_percent_method.yaml
     yolo-dist tune tune_spaces/bccd_factor_percent_method.yaml name=bccd-random searcher=random seed=1
     python benchmarks/search_study.py runs/bccd-factor-percent-method runs/bccd-random \
         --points benchmarks/results/study-bccd-pruning.json
"""

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter
from measure import publish_result
from study_figures import TUNED

from yolo_dist.config import read_yaml
from yolo_dist.layout import RECIPE_FILE
from yolo_dist.storage import location
from yolo_dist.tune.objective import ACCURACIES, Measure, losses
from yolo_dist.tune.pareto import hypervolumes
from yolo_dist.tune.results import SearchResults
from yolo_dist.tune.space import recipe_of, searched_space

Curve = list[tuple[float, float]]


def curve(results: SearchResults, reference: Mapping[Measure, float], borrowed: float) -> Curve:
    """Minutes and hypervolume after each trial that counts; stages that were there already took `borrowed` minutes."""
    corner = [0.0 if name in ACCURACIES else 1.0 for name in results.objectives]
    scales = [1.0 if name in ACCURACIES else reference[name] for name in results.objectives]
    by_id = {record.id: record for record in results.trials}
    points = [losses(by_id[step.trial].measured, results.objectives) for step in results.hypervolume]
    volumes = hypervolumes(np.reshape(points, (-1, len(scales))) / scales, corner)
    return [(borrowed + step.seconds / 60, volume) for step, volume in zip(results.hypervolume, volumes, strict=True)]


def image_size_of(search: Path, results: SearchResults) -> tuple[int, int]:
    """Width and height of the images of a search's trials."""
    recipe = read_yaml(search / RECIPE_FILE)
    return recipe_of(searched_space(location(search)), recipe, results.trials[0].values).image_size


def not_reached(results: SearchResults, points: Sequence[Mapping[str, Any]]) -> list[str]:
    """Hand-picked points, by their `stage`, that no trial of the front dominates or equals."""
    front = [losses(record.measured, results.objectives) for name in results.front if (record := results.trial(name))]

    def reached(point: Mapping[str, Any]) -> bool:
        wanted = losses({name: point[name] for name in results.objectives}, results.objectives)
        return any(all(a <= b for a, b in zip(found, wanted, strict=True)) for found in front)

    return [str(point["stage"]) for point in points if not reached(point)]


def drawn(
    searches: Sequence[SearchResults], curves: Mapping[str, Curve], points: Sequence[Mapping[str, Any]]
) -> Figure:
    """One colour a search: its finished trials with its front, and hypervolume over time."""
    figure = Figure(figsize=(11, 4), layout="constrained")
    trade_offs, volumes = figure.subplots(1, 2)
    accuracy, cost = sorted(searches[0].objectives, key=lambda name: name not in ACCURACIES)
    for results in searches:
        finished = [record.measured for record in results.trials if record.state == "finished"]
        dots = trade_offs.scatter([one[cost] for one in finished], [one[accuracy] for one in finished], alpha=0.5)
        front = sorted(
            (record for name in results.front if (record := results.trial(name))),
            key=lambda record: record.measured[cost],
        )
        sides = [[record.measured[name] for record in front] for name in (cost, accuracy)]
        trade_offs.plot(*sides, color=dots.get_facecolor()[0], label=results.name)
        volumes.step(*zip(*curves[results.name], strict=True), where="post", marker=".", label=results.name)
    if points:
        sides = [[point[name] for point in points] for name in (cost, accuracy)]
        trade_offs.scatter(*sides, marker="x", color="black", label="hand-picked")
    trade_offs.set(xlabel=cost, ylabel=accuracy, xscale="log")
    trade_offs.xaxis.set_minor_formatter(NullFormatter())  # they would overlap
    volumes.set(xlabel="minutes", ylabel="hypervolume")
    for axes in (trade_offs, volumes):
        axes.legend(frameon=False)
        axes.spines[["top", "right"]].set_visible(False)
    return figure


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("searches", nargs="+", type=Path, help="folders of searches with the same objectives")
    parser.add_argument("--points", type=Path, help="measurements of a study, whose tuned cuts are hand-picked points")
    parser.add_argument(
        "--borrowed",
        nargs=2,
        action="append",
        default=[],
        metavar=("NAME", "MINUTES"),
        help="what the stages took that a search was given from another one; its curve begins that much later",
    )
    parser.add_argument("--out", type=Path, default=Path("docs/results"))
    options = parser.parse_args()
    found = [SearchResults.model_validate_json((folder / "tune.json").read_bytes()) for folder in options.searches]
    sizes = {folder: image_size_of(folder, results) for folder, results in zip(options.searches, found, strict=True)}
    if len({*sizes.values()}) > 1:
        listed = ", ".join(f"{width}×{height} in {folder}" for folder, (width, height) in sizes.items())
        raise SystemExit(f"image_size: {listed}; searches compare only with the same one, so search again")
    reference = {name: max(results.reference[name] for results in found) for name in found[0].objectives}
    borrowed = {name: float(minutes) for name, minutes in options.borrowed}
    if unknown := borrowed.keys() - {results.name for results in found}:
        raise SystemExit(f"--borrowed: no search is called {', '.join(sorted(unknown))}")
    curves = {results.name: curve(results, reference, borrowed.get(results.name, 0)) for results in found}
    rows = [] if options.points is None else json.loads(options.points.read_text())["rows"]
    points = [row for row in rows if row["seed"] == 0 and row["stage"].endswith(TUNED)]
    drawn(found, curves, points).savefig(options.out / "bccd-search.png", dpi=110)
    told = []
    for results in found:
        states = [record.state for record in results.trials]
        minutes, volume = curves[results.name][-1]
        print(
            f"{results.name}: {len(states)} trials, {states.count('stopped')} stopped, "
            f"{states.count('failed')} failed, {minutes:.0f} min, hypervolume {volume:.4f}, "
            f"{results.stages_run} stages run, {results.stages_taken} taken ({results.seconds_taken / 60:.0f} min)"
        )
        missed = not_reached(results, points)
        if points:
            print(f"  hand-picked points beyond its front: {', '.join(missed) or 'none'}")
        kept = results.model_dump(mode="json", include={"name", "objectives", "front", "knee", "importance"})
        trials = [
            {"id": one.id, **one.values, "state": one.state, "epoch": one.epoch, **one.measured}
            for one in results.trials
        ]
        told.append(
            kept
            | {
                "borrowed_minutes": borrowed.get(results.name, 0),
                "curve": curves[results.name],
                "not_reached": missed,
                "trials": trials,
            }
        )
    publish_result("search-bccd", {"searches": told})


if __name__ == "__main__":
    main()
