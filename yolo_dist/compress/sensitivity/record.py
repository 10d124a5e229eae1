"""What each layer can lose, measured: a record that grows trial by trial, so that an interruption costs little.

What is lost, channels or bits, is a question of its own: see `cuts` and `bits`.
"""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Literal

from pydantic import ValidationError
from upath import UPath

from yolo_dist.compress.pruning.trials import Outcome, Plan, Progress, TrialSetup, outcomes_of
from yolo_dist.config import Config
from yolo_dist.darknet.cfg import format_cfg
from yolo_dist.darknet.network import Network
from yolo_dist.darknet.weights import weights_bytes
from yolo_dist.storage import publish

Unit = Literal["percent", "bits"]
Change = tuple[tuple[int, ...], int]
"""Layers of a curve and how many channels go or bits stay: the same change, whatever was asked for."""
NOTHING: Change = ((), 0)


@dataclass(frozen=True)
class PlannedTrial(Generic[Plan]):
    """One point of one curve.

    Attributes:
        amount: what was asked for: share of the channels that goes, or bits that stay.
        count: channels that go, or bits that stay; 0 changes nothing.
        plan: None where it would empty a layer; `remark` says so.
    """

    amount: float
    count: int
    plan: Plan | None
    remark: str = ""


@dataclass(frozen=True)
class PlannedCurve(Generic[Plan]):
    """Changes of the same layers.

    Attributes:
        layers: which, ascending; none for all candidates together.
        channels: how many they create.
        trials: the mildest first.
    """

    layers: tuple[int, ...]
    channels: int
    trials: tuple[PlannedTrial[Plan], ...]


@dataclass(frozen=True)
class Question(Generic[Plan]):
    """What is tried, all planned before anything is measured.

    Attributes:
        unit: of amounts.
        method: of the changes, for people.
        attempt: tries one plan; of a module that every worker can import.
        nothing: the plan that changes nothing.
        together: all candidates at once.
        sets: one curve for each set of layers alone.
        settings: what outcomes depend on beside the setup, as JSON; not the amounts, so that others may be added.
    """

    unit: Unit
    method: str
    attempt: Callable[[TrialSetup, Plan], Outcome]
    nothing: Plan
    together: PlannedCurve[Plan]
    sets: Sequence[PlannedCurve[Plan]]
    settings: Mapping[str, Any]


class Trial(Config):
    """One point of a curve."""

    amount: float
    """What was asked for: share of the channels that goes, or bits that stay."""
    count: int
    """Channels that went, or bits that stayed."""
    outcome: Outcome | None
    """None while it is not measured, and where a layer would vanish."""
    remark: str
    """Why there is no outcome."""


class Curve(Config):
    """The same layers at several amounts."""

    layers: tuple[int, ...]
    """Which; none for all candidates together."""
    channels: int
    """How many channels they create."""
    trials: tuple[Trial, ...]
    """The mildest first."""

    @property
    def name(self) -> str:
        """For people: the first layer, and how many shortcuts tie to it."""
        tied = f" + {len(self.layers) - 1} tied" if len(self.layers) > 1 else ""
        return f"{self.layers[0]}{tied}" if self.layers else "all"

    @property
    def measured(self) -> list[tuple[Trial, Outcome]]:
        """The trials that have an outcome."""
        return [(trial, trial.outcome) for trial in self.trials if trial.outcome]


class Sensitivity(Config):
    """mAP without fine-tuning against percent or bits, for each set of layers alone and for all together."""

    key: str
    """Hash of everything that an outcome depends on."""
    unit: Unit
    """Of amounts."""
    images: int
    """Of the validation split, on which accuracy was measured."""
    unchanged: Outcome | None
    """The network as it is; None while it is not measured."""
    method: str
    """That planned the cuts of all together, or the scheme of quantisation."""
    together: Curve
    """All candidates at once: under one threshold, or with equal bits."""
    sets: tuple[Curve, ...]
    """Each set of tied layers alone, by its first one."""

    def by_damage(self) -> list[Curve]:
        """The sets, those first whose changes leave the least mAP50 on average."""

        def left(curve: Curve) -> float:
            return sum(outcome.map50 for _, outcome in curve.measured) / max(len(curve.measured), 1)

        return sorted(self.sets, key=left)


def measure(
    setup: TrialSetup,
    question: Question[Plan],
    record: UPath,
    workers: int = 0,
    progress: Progress | None = None,
    option: str = "cluster.workers",
) -> Sensitivity:
    """Try everything that is not in the record yet.

    Args:
        setup: the network, and how it is evaluated.
        question: what to try.
        record: JSON file of the result, rewritten after each trial; one of another network or setting is replaced.
        workers, progress, option: see `evaluate_plans`.

    Raises:
        YoloDistError: what went wrong in a trial.
    """
    key = _key(setup, question)
    known = _known(record, key)

    def written() -> Sensitivity:
        result = Sensitivity(
            key=key,
            unit=question.unit,
            images=len(setup.validation),
            unchanged=known.get(NOTHING),
            method=question.method,
            together=_curve(question.together, known),
            sets=tuple(_curve(planned, known) for planned in question.sets),
        )
        publish(record, result.model_dump_json(indent=2))
        return result

    plans = _distinct(question)
    missing = [change for change in plans if change not in known]
    result = written()
    for number, outcome in outcomes_of(question.attempt, setup, [plans[one] for one in missing], workers, option):
        known[missing[number]] = outcome
        result = written()
        if progress:
            progress(len(plans.keys() & known.keys()), len(plans))
    return result


def _distinct(question: Question[Plan]) -> dict[Change, Plan]:
    """One plan for each change, the one of nothing first."""
    plans = {NOTHING: question.nothing}
    for curve in (question.together, *question.sets):
        plans |= {_change(curve.layers, one.count): one.plan for one in curve.trials if one.plan and one.count}
    return plans


def _change(layers: tuple[int, ...], count: int) -> Change:
    return (layers, count) if count else NOTHING


def _curve(planned: PlannedCurve[Plan], known: dict[Change, Outcome]) -> Curve:
    trials = (
        Trial(
            amount=one.amount,
            count=one.count,
            outcome=known.get(_change(planned.layers, one.count)) if one.plan else None,
            remark=one.remark,
        )
        for one in planned.trials
    )
    return Curve(layers=planned.layers, channels=planned.channels, trials=tuple(trials))


def _known(record: UPath, key: str) -> dict[Change, Outcome]:
    """Outcomes of an earlier attempt at the same thing; none if there is no such record."""
    try:
        earlier = Sensitivity.model_validate_json(record.read_bytes())
    except (FileNotFoundError, ValidationError):
        return {}
    return dict(_outcomes(earlier)) if earlier.key == key else {}


def _outcomes(sensitivity: Sensitivity) -> Iterator[tuple[Change, Outcome]]:
    if sensitivity.unchanged:
        yield NOTHING, sensitivity.unchanged
    for curve in (sensitivity.together, *sensitivity.sets):
        for trial, outcome in curve.measured:
            yield _change(curve.layers, trial.count), outcome


def _key(setup: TrialSetup, question: Question[Plan]) -> str:
    parts = {
        "unit": question.unit,
        "settings": question.settings,
        "model": _fingerprint(setup.network),
        "image_size": setup.image_size,
        "validation": setup.validation.fingerprint,
        "train": setup.train.fingerprint if setup.train is not None else None,
        "reestimate_images": setup.reestimate_images,
        "compensate": setup.compensate,
        "evaluation": setup.evaluation.model_dump(mode="json"),
        "max_detections": setup.max_detections,
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _fingerprint(network: Network) -> str:
    return hashlib.sha256(format_cfg(network.cfg).encode() + weights_bytes(network)).hexdigest()
