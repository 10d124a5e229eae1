"""A study as Markdown tables and a picture, from the measurements that `study.py` left."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from matplotlib import colormaps
from matplotlib.figure import Figure

TUNED = "-tuned"
Row = Mapping[str, Any]

DECIDED_HEAD = "| stage | parameters | seeds | mAP50 | mAP |\n|---|---|---|---|---|"
CUTS_HEAD = (
    "| cut | parameters | MMACs | weights | mAP50 cut | tuned | mAP tuned | PyTorch | ONNX Runtime | of the ideal |\n"
    "|---|---|---|---|---|---|---|---|---|---|"
)


def repeated_table(rows: Sequence[Row]) -> str:
    """Stages that several seeds repeated: mean and standard deviation over the seeds."""
    by_stage: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        by_stage[row["stage"]].append(row)
    lines = [
        f"| {stage} | {_range([row['parameters'] for row in some])} | {len(some)} | {_spread(some, 'map50')} "
        f"| {_spread(some, 'map')} |"
        for stage, some in by_stage.items()
        if len(some) > 1 and stage + TUNED not in by_stage
    ]
    return "\n".join([DECIDED_HEAD, *lines])


def differences_table(rows: Sequence[Row], reference: str) -> str:
    """What each stage gains over another, seed by seed, which share their images and first weights; and the mean."""
    scores = {(row["stage"], row["seed"]): row for row in rows}
    seeds = sorted(seed for stage, seed in scores if stage == reference)
    lines = []
    for stage in dict.fromkeys(row["stage"] for row in rows):
        if stage != reference and all((stage, seed) in scores for seed in seeds):
            gains = {
                key: [scores[stage, seed][key] - scores[reference, seed][key] for seed in seeds]
                for key in ("map50", "map")
            }
            cells = (f"{', '.join(f'{gain:+.3f}' for gain in some)} | {mean(some):+.3f}" for some in gains.values())
            lines.append(f"| {stage} | {' | '.join(cells)} |")
    return "\n".join(
        [f"| less {reference} | mAP50 by seed | mean | mAP by seed | mean |\n|---|---|---|---|---|", *lines]
    )


def cuts_table(rows: Sequence[Row], seed: int) -> str:
    """Every cut of one seed, before and after fine-tuning; `of the ideal` is speed-up over reduction of MACs."""
    own = {row["stage"]: row for row in rows if row["seed"] == seed}
    lines = []
    for name in [name for name in own if name + TUNED in own]:
        base = own["base"]
        cut, shown = own[name], own[name + TUNED]
        speed_up, reduction = base["torch_ms"] / shown["torch_ms"], base["macs"] / shown["macs"]
        lines.append(
            f"| {name} | {shown['parameters']:,} | {shown['macs'] / 1e6:,.1f} | {shown['weight_bytes'] / 1e6:.2f} MB "
            f"| {_score(cut['map50'])} | {_score(shown['map50'])} | {_score(shown['map'])} "
            f"| {shown['torch_ms']:.1f} ms | {shown['onnxruntime_ms']:.1f} ms | {speed_up / reduction:.2f} |"
        )
    return "\n".join([CUTS_HEAD, *lines]).replace(",", " ")


def picture(rows: Sequence[Row], path: Path, title: str) -> None:
    """A study of cuts as accuracy against parameters; any other as the accuracy of its stages."""
    figure = Figure(figsize=(9, 5), layout="constrained")
    if any(row["stage"].endswith(TUNED) for row in rows):
        _draw_cuts(rows, figure)
    else:
        _draw_stages(rows, figure)
    figure.suptitle(title)
    figure.savefig(path, dpi=110)


def _draw_stages(rows: Sequence[Row], figure: Figure) -> None:
    """A dot for each seed's network, a line at their mean, for each stage; networks just cut are left out."""
    by_stage: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        if row["kind"] == "train":
            by_stage[row["stage"]].append(row)
    for axes, key, name in zip(figure.subplots(1, 2), ("map50", "map"), ("mAP50", "mAP"), strict=True):
        for place, some in enumerate(by_stage.values()):
            scores = [row[key] for row in some]
            axes.hlines(mean(scores), place - 0.25, place + 0.25, color="tab:blue")
            axes.plot([place] * len(scores), scores, "o", color="black", markersize=4, alpha=0.7)
        axes.set(title=f"{name} on validation images")
        axes.set_xticks(range(len(by_stage)), by_stage, rotation=45, ha="right")
        axes.grid(axis="y", alpha=0.3)


def _draw_cuts(rows: Sequence[Row], figure: Figure) -> None:
    """Accuracy after fine-tuning against parameters; stages repeated with several seeds with their spread."""
    axes = figure.subplots()
    axes.set_prop_cycle(color=colormaps["tab20"](range(20)))
    by_name: dict[str, dict[str, list[Row]]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        stage = row["stage"]
        if stage.endswith(TUNED) or stage in ("base", "scratch", "base-longer", "sparse-longer"):
            by_name[_family(stage)][stage].append(row)
    for family, stages in by_name.items():
        points = sorted(stages.values(), key=lambda some: mean(row["parameters"] for row in some))
        axes.errorbar(
            [mean(row["parameters"] for row in some) for some in points],
            [mean(row["map50"] for row in some) for some in points],
            [stdev(row["map50"] for row in some) if len(some) > 1 else 0 for some in points],
            marker="o",
            capsize=4,
            label=family,
        )
    axes.set(xscale="log", xlabel="parameters", ylabel="mAP50 on validation images")
    axes.grid(alpha=0.3)
    figure.legend(loc="outside right upper", frameon=False)


def _family(stage: str) -> str:
    name, _, percent = stage.removesuffix(TUNED).rpartition("-")
    return name if percent.isdigit() else stage.removesuffix(TUNED)


def _score(value: float) -> str:
    return f"{value:.3f}".removeprefix("0")


def _spread(rows: Sequence[Row], key: str) -> str:
    values = [row[key] for row in rows]
    return f"{_score(mean(values))} ± {_score(stdev(values))}"


def _range(values: Sequence[int]) -> str:
    low, high = min(values), max(values)
    return f"{low:,}".replace(",", " ") if low == high else f"{low:,} to {high:,}".replace(",", " ")
