"""Searches side by side: hypervolume over time as a picture, and whether a front reaches hand-picked points.

All hypervolumes are taken against the same reference, the largest of those that the searches have themselves.

Run: yolo-dist tune tune_spaces/bccd_factor_percent_method.yaml
     yolo-dist tune tune_spaces/bccd_factor_percent_method.yaml name=bccd-random searcher=random
     python benchmarks/search_study.py runs/bccd-factor-percent-method runs/bccd-random --points study.json
"""

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from yolo_dist.tune.objective import ACCURACIES, Measure, losses
from yolo_dist.tune.pareto import hypervolumes
from yolo_dist.tune.results import SearchResults

Curve = list[tuple[float, float]]


def curve(results: SearchResults, reference: Mapping[Measure, float]) -> Curve:
    """Minutes and hypervolume after each trial of a search that counts."""
    corner = [0.0 if name in ACCURACIES else 1.0 for name in results.objectives]
    scales = [1.0 if name in ACCURACIES else reference[name] for name in results.objectives]
    by_id = {record.id: record for record in results.trials}
    points = [losses(by_id[step.trial].measured, results.objectives) for step in results.hypervolume]
    volumes = hypervolumes(np.reshape(points, (-1, len(scales))) / scales, corner)
    return [(step.seconds / 60, volume) for step, volume in zip(results.hypervolume, volumes, strict=True)]


def not_reached(results: SearchResults, points: Sequence[Mapping[str, Any]]) -> list[str]:
    """Hand-picked points, by their `stage`, that no trial of the front dominates or equals."""
    front = [losses(record.measured, results.objectives) for name in results.front if (record := results.trial(name))]

    def reached(point: Mapping[str, Any]) -> bool:
        wanted = losses({name: point[name] for name in results.objectives}, results.objectives)
        return any(all(a <= b for a, b in zip(found, wanted, strict=True)) for found in front)

    return [str(point["stage"]) for point in points if not reached(point)]


def drawn(curves: Mapping[str, Curve]) -> Figure:
    """One line a search."""
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    for name, points in curves.items():
        axes.step(*zip(*points, strict=True), where="post", marker=".", label=name)
    axes.set(xlabel="minutes", ylabel="hypervolume")
    axes.legend(frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("searches", nargs="+", type=Path, help="folders of searches with the same objectives")
    parser.add_argument("--points", type=Path, help="JSON list of hand-picked points: stage and objectives")
    parser.add_argument("--out", type=Path, default=Path("docs/results"))
    options = parser.parse_args()
    found = [SearchResults.model_validate_json((folder / "tune.json").read_bytes()) for folder in options.searches]
    reference = {name: max(results.reference[name] for results in found) for name in found[0].objectives}
    curves = {results.name: curve(results, reference) for results in found}
    drawn(curves).savefig(options.out / "search-hypervolume.svg")
    for results in found:
        states = [record.state for record in results.trials]
        minutes, volume = curves[results.name][-1]
        print(
            f"{results.name}: {len(states)} trials, {states.count('stopped')} stopped, "
            f"{states.count('failed')} failed, {minutes:.0f} min, hypervolume {volume:.4f}, "
            f"{results.stages_run} stages run, {results.stages_taken} taken ({results.seconds_taken / 60:.0f} min)"
        )
        if options.points is not None:
            missed = not_reached(results, json.loads(options.points.read_text()))
            print(f"  hand-picked points beyond its front: {', '.join(missed) or 'none'}")


if __name__ == "__main__":
    main()
