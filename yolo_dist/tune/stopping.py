"""When a trial is given up before its end: by mAP after the same epoch of the same stage as that of others."""

from typing import Annotated, Literal

from annotated_types import Ge, Gt
from ray.tune.schedulers import AsyncHyperBandScheduler, FIFOScheduler, MedianStoppingRule, TrialScheduler

from yolo_dist.config import Config
from yolo_dist.recipe import Recipe, TrainStage


class StoppingConfig(Config):
    """Early stopping inside one training stage, whose evaluations it compares between trials."""

    rule: Literal["asha", "median"] = "asha"
    """`asha`: only the best share goes on past each rung (Li et al. 2020, "A System for Massively Parallel
    Hyperparameter Tuning"); `median`: whose best mAP is under the median of the others' means ends (Golovin et al.
    2017, "Google Vizier")."""
    stage: str | None = None
    """The stage; the last training stage by default."""
    grace: Annotated[int, Ge(1)] = 1
    """Epochs of that stage that every trial gets."""
    reduction: Annotated[float, Gt(1)] = 3
    """For `asha`: one in so many trials goes on, and rungs lie at grace · reduction^k epochs."""

    def stage_of(self, recipe: Recipe) -> TrainStage | None:
        """The stage whose evaluations count; None where a recipe has none of that name, or no training stage."""
        stages = [stage for stage in recipe.stages if isinstance(stage, TrainStage)]
        named = [stage for stage in stages if self.stage in (None, stage.id)]
        return named[-1] if named else None

    def problems_of(self, recipe: Recipe) -> list[str]:
        """Why it cannot stop a trial of a recipe."""
        stage = self.stage_of(recipe)
        if stage is None:
            return [f"stopping.stage: the recipe has no training stage {self.stage or ''}".rstrip()]
        if stage.evaluate_every == 0:
            return [f"stopping: stage {stage.id} is evaluated only at its end; give it another evaluate_every"]
        if self.grace > stage.epochs:
            return [f"stopping.grace: {self.grace} is more than the {stage.epochs} epochs of stage {stage.id}"]
        return []


def scheduler_of(stopping: StoppingConfig | None, epochs: int) -> TrialScheduler:
    """Ray Tune's scheduler; it reads `map` by `epoch`, up to `epochs`, and passes over reports without them."""
    if stopping is None:
        return FIFOScheduler()
    if stopping.rule == "median":
        return MedianStoppingRule("epoch", "map", "max", grace_period=stopping.grace)
    return AsyncHyperBandScheduler(
        "epoch",
        "map",
        "max",
        max_t=max(epochs, stopping.grace + 1),
        grace_period=stopping.grace,
        reduction_factor=stopping.reduction,
        stop_last_trials=False,
    )
