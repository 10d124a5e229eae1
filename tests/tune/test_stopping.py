"""Early stopping, by Ray Tune's own rules: who falls behind is stopped, but never a trial that no other beats."""

from collections.abc import Collection
from types import SimpleNamespace
from typing import Any, Literal

import pytest
from ray.tune.experiment import Trial
from ray.tune.schedulers import TrialScheduler

from yolo_dist.tune.stopping import StoppingConfig, scheduler_of

RULES = pytest.mark.parametrize("rule", ["asha", "median"])
WAITING: Any = SimpleNamespace(get_live_trials=lambda: [Trial("waiting", stub=True)])
"""What a rule asks of Tune: whether others would begin if a trial paused."""

Report = tuple[float, list[float]]
"""mAP, and losses so far as they are known."""


BOTH = ("map", "parameters")


def decisions(rule: Literal["asha", "median"], reports: list[Report], objectives: Collection[str] = BOTH) -> list[str]:
    """What each of several trials is told to do after its first epoch."""
    scheduler = scheduler_of(StoppingConfig(rule=rule), objectives)
    told = []
    for accuracy, losses in reports:
        trial = Trial("trial", stub=True)
        scheduler.on_trial_add(WAITING, trial)
        report = {"epoch": 1, "map": accuracy, "losses_known": losses}
        told.append(scheduler.on_trial_result(WAITING, trial, report))
    return told


def sized(accuracy: float, parameters: float) -> Report:
    return accuracy, [-accuracy, parameters]


@RULES
def test_no_trial_of_a_front_is_stopped(rule: Any) -> None:
    front = [sized(1 - percent / 12, 12 - percent) for percent in range(12)]
    assert set(decisions(rule, front)) == {TrialScheduler.CONTINUE}


@RULES
def test_a_trial_is_stopped_that_a_smaller_one_beats(rule: Any) -> None:
    better = [sized(0.5 + size / 100, size) for size in range(1, 6)]
    assert decisions(rule, [*better, sized(0.4, 2)])[-1] == TrialScheduler.STOP
    assert decisions(rule, [*better, sized(0.4, 0)])[-1] == TrialScheduler.CONTINUE


@RULES
def test_with_accuracy_alone_who_falls_behind_is_stopped(rule: Any) -> None:
    falling = [(1 - number / 12, [number / 12 - 1]) for number in range(12)]
    assert set(decisions(rule, falling, objectives=["map"])[4:]) == {TrialScheduler.STOP}


def test_few_comparable_trials_are_no_reason_to_pause_one_while_others_wait() -> None:
    assert decisions("median", [sized(0.5, 1), sized(0.4, 2)]) == [TrialScheduler.CONTINUE] * 2


@RULES
def test_a_trial_that_was_spared_once_can_fall_behind_later(rule: Any) -> None:
    scheduler, trials = scheduler_of(StoppingConfig(rule=rule), BOTH), [Trial("trial", stub=True) for _ in range(5)]
    for trial in trials:
        scheduler.on_trial_add(WAITING, trial)
    *better, small = trials
    for epoch, of_small in ((1, [-0.1, 0.0]), (3, [-0.1, 1.0])):
        for trial in better:
            scheduler.on_trial_result(WAITING, trial, {"epoch": epoch, "map": 0.5, "losses_known": [-0.5, 1.0]})
        last = scheduler.on_trial_result(WAITING, small, {"epoch": epoch, "map": 0.1, "losses_known": of_small})
        assert last == (TrialScheduler.CONTINUE if epoch == 1 else TrialScheduler.STOP)


def tell(scheduler: TrialScheduler, trial: Trial, accuracies: dict[int, float]) -> str:
    """What a trial is told to do after the last of some evaluations, mAP by epoch."""
    told = TrialScheduler.CONTINUE
    for epoch, accuracy in accuracies.items():
        report = {"epoch": epoch, "map": accuracy, "losses_known": [-accuracy]}
        told = scheduler.on_trial_result(WAITING, trial, report)
    return told


def begun(scheduler: TrialScheduler) -> Trial:
    trial = Trial("trial", stub=True)
    scheduler.on_trial_add(WAITING, trial)
    return trial


@pytest.mark.parametrize("objectives", [["map"], BOTH], ids=" and ".join)
@pytest.mark.parametrize(
    "told",
    [
        pytest.param([{1: 0.1, 2: 0.4}], id="the last, with which a trial ends"),
        pytest.param(
            [{1: 0.4}, {1: 0.4}, {1: 0.4, 2: 0.1}], id="the first, of which it tells again when it begins anew"
        ),
    ],
)
def test_the_median_counts_every_evaluation_once(objectives: list[str], told: list[dict[int, float]]) -> None:
    """The mean of .1 and .4 is .25, and would be more if .4 counted twice."""
    scheduler = scheduler_of(StoppingConfig(rule="median"), objectives)
    tell(scheduler, begun(scheduler), {2: 0.9})
    for _ in range(3):
        other = begun(scheduler)
        for accuracies in told:
            tell(scheduler, other, accuracies)
        scheduler.on_trial_complete(WAITING, other, {"epoch": 2, "map": told[-1][2], "done": True})
    assert tell(scheduler, begun(scheduler), {2: 0.24}) == TrialScheduler.STOP
    assert tell(scheduler, begun(scheduler), {2: 0.27}) == TrialScheduler.CONTINUE


def test_rungs_reach_as_far_as_any_trial() -> None:
    """Epochs can be searched too: rungs lie after 10, 30, 90, … epochs, however many the recipe's file says."""
    scheduler = scheduler_of(StoppingConfig(grace=10), ["map"])
    for _ in range(3):
        tell(scheduler, begun(scheduler), {10: 0.1, 30: 0.1, 90: 0.9})
    assert tell(scheduler, begun(scheduler), {10: 0.2, 30: 0.2, 90: 0.3}) == TrialScheduler.STOP


@RULES
def test_for_accuracy_alone_the_only_trial_after_an_epoch_is_not_spared(rule: Any) -> None:
    scheduler = scheduler_of(StoppingConfig(rule=rule, grace=10), ["map50"])
    for _ in range(6):
        tell(scheduler, begun(scheduler), {10: 0.5, 12: 0.5})
    assert tell(scheduler, begun(scheduler), {11: 0.1}) == TrialScheduler.STOP


@RULES
def test_the_cheapest_is_spared_where_a_cost_is_the_only_objective(rule: Any) -> None:
    accuracies = [(0.5 + number / 100, [10.0 - number]) for number in range(5)]
    assert decisions(rule, [*accuracies, (0.1, [1.0])], ["parameters"])[-1] == TrialScheduler.CONTINUE
    assert decisions(rule, [*accuracies, (0.1, [9.0])], ["parameters"])[-1] == TrialScheduler.STOP
