"""What a search is after: numbers of a trial's results, which way is better, and within which limits."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, Self, get_args

from annotated_types import MinLen
from pydantic import AfterValidator, FiniteFloat, model_validator

from yolo_dist.config import Config
from yolo_dist.recipe import ExportStage, PruneStage, QuantizeStage, Recipe, Stage, TrainStage

Measure = Literal["map50", "map", "parameters", "macs", "weight_bytes", "latency_ms"]
Direction = Literal["maximise", "minimise"]
MEASURES = get_args(Measure)
ACCURACIES = ("map50", "map")
COSTS = tuple(name for name in MEASURES if name not in ACCURACIES)
SIZES = ("parameters", "macs")
"""Costs that an exported or quantised network has in common with the float one."""


def _towards_better(objectives: dict[Measure, Direction]) -> dict[Measure, Direction]:
    """What a front covers is measured from accuracy 0 and the highest cost, so no objective can go the other way."""
    for name, direction in objectives.items():
        better: Direction = "maximise" if name in ACCURACIES else "minimise"
        if direction != better:
            raise ValueError(
                f"{name} can only be {better}d here; to keep it up or down, give it a limit in constraints"
            )
    return objectives


Objectives = Annotated[dict[Measure, Direction], MinLen(1), AfterValidator(_towards_better)]
"""Measures by how they get better: accuracies grow, costs shrink."""


class Limit(Config):
    """Between which numbers a measure of a trial that counts lies."""

    least: FiniteFloat | None = None
    most: FiniteFloat | None = None

    @model_validator(mode="after")
    def _some_limit(self) -> Self:
        if self.least is None and self.most is None:
            raise ValueError("give least, most or both")
        if self.least is not None and self.most is not None and self.least > self.most:
            raise ValueError(f"least {self.least:g} is above most {self.most:g}")
        return self

    def excess(self, value: float) -> float:
        """How far outside a value is, as a share of the limit where that is not 0; 0 or less inside."""
        over = [] if self.most is None else [(value - self.most) / (abs(self.most) or 1)]
        under = [] if self.least is None else [(self.least - value) / (abs(self.least) or 1)]
        return max(over + under)


def _within_reach(limits: dict[Measure, Limit]) -> dict[Measure, Limit]:
    for name, limit in limits.items():
        if name in ACCURACIES and limit.least is not None and limit.least > 1:
            raise ValueError(f"{name} is a share of 1, which is never {limit.least:g}; write 0.5 for 50 %")
        if limit.most is not None and limit.most < 0:
            raise ValueError(f"{name} is never below 0, so not at most {limit.most:g}")
    return limits


Limits = Annotated[dict[Measure, Limit], AfterValidator(_within_reach)]
"""Limits by measure, which some trial can keep."""


def losses(measured: Mapping[str, float], objectives: Mapping[Measure, Direction]) -> list[float]:
    """A trial's objectives, all of them better when smaller, in the order in which they were named."""
    return [measured[name] * (-1 if direction == "maximise" else 1) for name, direction in objectives.items()]


def measures_of(row: Mapping[str, Any]) -> dict[str, float]:
    """What a row of results, or an epoch's line, says of all that can be asked for."""
    return {name: row[name] for name in MEASURES if row.get(name) is not None}


def feasible(measured: Mapping[str, float], limits: Mapping[Measure, Limit]) -> bool:
    """Whether a trial keeps every limit."""
    return all(limit.excess(measured[name]) <= 0 for name, limit in limits.items())


def costs_known_at(trained: TrainStage, recipe: Recipe) -> tuple[str, ...]:
    """Costs that the recipe's last stage will report and the network that a training stage starts from has already."""
    last = recipe.stages[-1]
    chain = list(recipe.chain_of(last))
    if trained not in chain or any(isinstance(stage, PruneStage) for stage in chain[: chain.index(trained)]):
        return ()
    return SIZES if isinstance(last, ExportStage) or _simulated(recipe, last) else COSTS


def problems_of_measures(recipe: Recipe, stage: str | None, measures: Sequence[str]) -> list[str]:
    """Why a recipe does not tell all that a search asks of one of its stages, the last by default."""
    ids = [other.id for other in recipe.stages]
    if stage is not None and stage not in ids:
        return [f"stage: the recipe has no stage {stage}; it has {', '.join(ids)}"]
    named = recipe.stages[-1] if stage is None else next(other for other in recipe.stages if other.id == stage)
    if "latency_ms" in measures and _simulated(recipe, named):
        return [
            f"latency_ms: stage {named.id} simulates a quantised network and reports no latency; add an "
            "export stage, and name it with stage:"
        ]
    return []


def _simulated(recipe: Recipe, stage: Stage) -> bool:
    """Whether a stage's network is a quantised one that is not exported."""
    if isinstance(stage, ExportStage):
        return False
    quantising = (
        isinstance(other, QuantizeStage) or (isinstance(other, TrainStage) and other.quantization is not None)
        for other in recipe.chain_of(stage)
    )
    return any(quantising) or bool(recipe.model.is_quantized())
