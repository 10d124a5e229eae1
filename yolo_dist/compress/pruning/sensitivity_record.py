"""What each layer can lose, measured: a record that grows trial by trial, so that an interruption costs little."""

import hashlib
import json
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from pydantic import ValidationError
from upath import UPath

from yolo_dist.bundle import Bundle
from yolo_dist.compress.pruning.candidates import candidate_sets
from yolo_dist.compress.pruning.plan import PrunePlan
from yolo_dist.compress.pruning.prune import prepare
from yolo_dist.compress.pruning.sensitivity import (
    PlannedCurve,
    SensitivityConfig,
    plan_set,
    plan_together,
)
from yolo_dist.compress.pruning.trials import Outcome, Progress, TrialSetup, outcomes_of
from yolo_dist.config import Config
from yolo_dist.storage import publish

Cut = tuple[tuple[int, ...], int]
"""Layers of a curve and how many of its channels go: the same cut, whatever the percent that led to it."""
NOTHING: Cut = ((), 0)


class Trial(Config):
    """One point of a curve."""

    percent: float
    """Share of the channels that was asked for."""
    cut: int
    """Channels that went."""
    outcome: Outcome | None
    """None while it is not measured, and where a layer would vanish."""
    remark: str
    """Why there is no outcome."""


class Curve(Config):
    """The same channels cut at several percents."""

    layers: tuple[int, ...]
    """Convolutions that create them; none for all candidates together."""
    channels: int
    """How many there are."""
    trials: tuple[Trial, ...]
    """By percent, ascending."""

    @property
    def name(self) -> str:
        """For people: the first convolution, and how many shortcuts tie to it."""
        tied = f" + {len(self.layers) - 1} tied" if len(self.layers) > 1 else ""
        return f"{self.layers[0]}{tied}" if self.layers else "all"

    @property
    def measured(self) -> list[tuple[Trial, Outcome]]:
        """The trials that have an outcome."""
        return [(trial, trial.outcome) for trial in self.trials if trial.outcome]


class Sensitivity(Config):
    """mAP without fine-tuning against percent, for each set of channels alone and for all together."""

    key: str
    """Hash of everything that an outcome depends on."""
    images: int
    """Of the validation split, on which accuracy was measured."""
    unpruned: Outcome | None
    """The network as it is; None while it is not measured."""
    method: str
    """That planned the cuts of all together."""
    together: Curve
    """All candidates under one threshold."""
    sets: tuple[Curve, ...]
    """Each set of tied channels alone, by its first convolution."""

    def by_damage(self) -> list[Curve]:
        """The sets, those first whose cuts leave the least mAP50 on average."""

        def left(curve: Curve) -> float:
            return sum(outcome.map50 for _, outcome in curve.measured) / max(len(curve.measured), 1)

        return sorted(self.sets, key=left)


def measure_sensitivity(
    setup: TrialSetup,
    config: SensitivityConfig,
    record: UPath,
    workers: int = 0,
    progress: Progress | None = None,
    option: str = "cluster.workers",
) -> Sensitivity:
    """Try every cut that is not in the record yet.

    Args:
        setup: the network, and how it is evaluated; its `reestimate_images` and number of images are those of `config`.
        config: what to cut.
        record: JSON file of the result, rewritten after each trial; one of another network or setting is replaced.
        workers, progress, option: see `evaluate_plans`.

    Raises:
        PruneError: the network has no candidate, all its γ are equal, or its weights are not finite.
    """
    graph, importance = prepare(setup.start.network)
    method, together = plan_together(graph, importance, config.scope, config.percents)
    sets = [plan_set(graph, importance, one, config.percents) for one in candidate_sets(graph, config.scope)]
    key = _key(setup, config)
    known = _known(record, key)

    def written() -> Sensitivity:
        result = Sensitivity(
            key=key,
            images=len(setup.validation),
            unpruned=known.get(NOTHING),
            method=method,
            together=_curve(together, known),
            sets=tuple(_curve(planned, known) for planned in sets),
        )
        publish(record, result.model_dump_json(indent=2))
        return result

    plans = _distinct([together, *sets])
    missing = [cut for cut in plans if cut not in known]
    result = written()
    for number, outcome in outcomes_of(setup, [plans[cut] for cut in missing], workers, option):
        known[missing[number]] = outcome
        result = written()
        if progress:
            progress(len(plans.keys() & known.keys()), len(plans))
    return result


def _distinct(curves: Sequence[PlannedCurve]) -> dict[Cut, PrunePlan]:
    """One plan for each cut, the one of nothing first."""
    plans = {NOTHING: PrunePlan.from_masks({}, method="sensitivity", percent=0, threshold=None)}
    for curve in curves:
        plans |= {_cut(curve.layers, one.cut): one.plan for one in curve.cuts if one.plan and one.cut}
    return plans


def _cut(layers: tuple[int, ...], cut: int) -> Cut:
    return (layers, cut) if cut else NOTHING


def _curve(planned: PlannedCurve, known: dict[Cut, Outcome]) -> Curve:
    trials = (
        Trial(
            percent=one.percent,
            cut=one.cut,
            outcome=known.get(_cut(planned.layers, one.cut)) if one.plan else None,
            remark=one.remark,
        )
        for one in planned.cuts
    )
    return Curve(layers=planned.layers, channels=planned.channels, trials=tuple(trials))


def _known(record: UPath, key: str) -> dict[Cut, Outcome]:
    """Outcomes of an earlier attempt at the same thing; none if there is no such record."""
    try:
        earlier = Sensitivity.model_validate_json(record.read_bytes())
    except (FileNotFoundError, ValidationError):
        return {}
    return dict(_outcomes(earlier)) if earlier.key == key else {}


def _outcomes(sensitivity: Sensitivity) -> Iterator[tuple[Cut, Outcome]]:
    if sensitivity.unpruned:
        yield NOTHING, sensitivity.unpruned
    for curve in (sensitivity.together, *sensitivity.sets):
        for trial, outcome in curve.measured:
            yield _cut(curve.layers, trial.cut), outcome


def _key(setup: TrialSetup, config: SensitivityConfig) -> str:
    """Hash of everything that an outcome depends on; the percents are not part of it, so others may be added."""
    parts = {
        "model": setup.start.fingerprint or _fingerprint(setup.start),
        "image_size": setup.start.image_size,
        "validation": setup.validation.fingerprint,
        "train": setup.train.fingerprint if setup.train is not None and setup.reestimate_images else None,
        "scope": config.scope,
        "reestimate_images": setup.reestimate_images,
        "compensate": setup.compensate,
        "evaluation": setup.evaluation.model_dump(mode="json"),
        "max_detections": setup.max_detections,
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _fingerprint(bundle: Bundle) -> str:
    """What a bundle that was never saved would have."""
    with tempfile.TemporaryDirectory(prefix="yolo-dist-") as folder:
        return bundle.write(Path(folder)).fingerprint
