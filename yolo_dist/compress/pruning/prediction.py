"""What a cut would cost at several percents: a table before it, a sentence when it is refused."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from yolo_dist.compress.importance import BatchLoss
from yolo_dist.compress.pruning.method import OPTIONS, PruneConfig
from yolo_dist.compress.pruning.plan import PrunePlan
from yolo_dist.compress.pruning.prune import planner
from yolo_dist.compress.pruning.trials import Outcome, Progress, TrialSetup, evaluate_plans
from yolo_dist.errors import PruneError

PERCENTS = (0.1, 0.3, 0.5, 0.7, 0.9)
IMAGES = 128
"""Of the validation split, on which damage is predicted unless a user says otherwise."""
HARMLESS = 0.01
"""mAP50 that a cut may cost and still count as free."""


@dataclass(frozen=True)
class Prediction:
    """What is left at one percent; `outcome` is None where nothing can be cut so, and `remark` says why."""

    percent: float
    outcome: Outcome | None
    remark: str = ""

    def as_json(self) -> dict[str, Any]:
        """A JSON object: percent, parameters, map, map50, remark."""
        numbers = dict.fromkeys(Outcome.model_fields) if self.outcome is None else self.outcome.model_dump(mode="json")
        return {"percent": self.percent, **numbers, "remark": self.remark}


def predict(
    setup: TrialSetup,
    config: PruneConfig,
    asked: PrunePlan,
    workers: int = 0,
    progress: Progress | None = None,
    option: str = "cluster.workers",
    calibration: Iterable[BatchLoss] = (),
) -> list[Prediction]:
    """What would be left without fine-tuning: of the network as it is (percent 0), of `asked`, and at other percents.

    Args:
        setup: the network, and how it is evaluated.
        config: the request that `asked` answers; others are the same at another percent.
        asked: the plan that shall be carried out.
        workers, progress, option: see `evaluate_plans`.
        calibration: see `make_plan`.

    Returns:
        That of the network as it is, then one a percent, ascending.
    """
    plan_of = planner(setup.network, config, calibration)
    plans: dict[float, PrunePlan] = {}
    remarks: dict[float, str] = {}
    for percent in _other_percents(config, asked):
        try:
            plans[percent] = plan_of(config.model_copy(update={"percent": percent}))
        except PruneError as error:
            remarks[percent] = str(error)
    plans[asked.percent] = asked
    nothing = PrunePlan.from_masks({}, method=config.method, percent=0, threshold=None)
    before, *after = evaluate_plans(setup, [nothing, *plans.values()], workers, progress, option)
    outcomes = dict(zip(plans, after, strict=True))
    cuts = (Prediction(one, outcomes.get(one), remarks.get(one, "")) for one in sorted(plans | remarks))
    return [Prediction(0, before), *cuts]


def describe_damage(predictions: Sequence[Prediction], asked: PrunePlan, images: int) -> str:
    """In words what `asked` would cost on so many images, and the largest percent that would be free."""
    (_, before), *tried = [(one.percent, one.outcome.map50) for one in predictions if one.outcome]
    after = dict(tried)[asked.percent]
    free = [percent for percent, map50 in tried if map50 >= before - HARMLESS]
    listed = ", ".join(f"{percent:g}" for percent, _ in tried)
    within = f"the largest percent of {listed} that keeps it within {HARMLESS:g} is {max(free):g}" if free else ""
    return (
        f"without fine-tuning mAP50 on {images} validation images would be {after:.3f} instead of {before:.3f}, and "
        + (within or f"no percent of {listed} keeps it within {HARMLESS:g}")
    )


def _other_percents(config: PruneConfig, asked: PrunePlan) -> tuple[float, ...]:
    """Those at which the method would plan something else; none for a given number of residual blocks alone."""
    only_blocks = config.shortcuts is not None and not asked.channels
    return PERCENTS if "percent" in OPTIONS[config.method] and not only_blocks else ()
