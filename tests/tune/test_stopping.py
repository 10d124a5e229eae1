"""Early stopping, by Ray Tune's own rules: who falls behind is stopped, but never a trial that no other beats."""

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


def decisions(rule: Literal["asha", "median"], reports: list[Report]) -> list[str]:
    """What each of several trials is told to do after its first epoch."""
    scheduler = scheduler_of(StoppingConfig(rule=rule), epochs=9)
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
    assert set(decisions(rule, falling)[4:]) == {TrialScheduler.STOP}


def test_few_comparable_trials_are_no_reason_to_pause_one_while_others_wait() -> None:
    assert decisions("median", [sized(0.5, 1), sized(0.4, 2)]) == [TrialScheduler.CONTINUE] * 2


@RULES
def test_a_trial_that_was_spared_once_can_fall_behind_later(rule: Any) -> None:
    scheduler, trials = scheduler_of(StoppingConfig(rule=rule), epochs=9), [Trial("trial", stub=True) for _ in range(5)]
    for trial in trials:
        scheduler.on_trial_add(WAITING, trial)
    *better, small = trials
    for epoch, of_small in ((1, [-0.1, 0.0]), (3, [-0.1, 1.0])):
        for trial in better:
            scheduler.on_trial_result(WAITING, trial, {"epoch": epoch, "map": 0.5, "losses_known": [-0.5, 1.0]})
        last = scheduler.on_trial_result(WAITING, small, {"epoch": epoch, "map": 0.1, "losses_known": of_small})
        assert last == (TrialScheduler.CONTINUE if epoch == 1 else TrialScheduler.STOP)
