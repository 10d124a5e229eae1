"""Results: the front within the limits, what it covers, and which keys decided."""

from pathlib import Path

import numpy as np
import pytest
from searches import record, space

from yolo_dist.config import validate
from yolo_dist.tune.objective import Limit, feasible, losses
from yolo_dist.tune.results import results_of

OVER = {"space": {"pruned.percent": {"uniform": [0, 1]}}, "searcher": "tpe", "trials": 9}
A, B, C = record("a", 0.8, 500, 10.0), record("b", 0.6, 200, 20.0), record("c", 0.5, 600, 30.0)


def test_more_accuracy_and_less_of_everything_else_is_better() -> None:
    assert losses({"map50": 0.8, "macs": 3.0}, {"map50": "maximise", "macs": "minimise"}) == [-0.8, 3.0]


@pytest.mark.parametrize(("value", "excess"), [(50, 0.0), (150, -0.25), (200, 0.0), (300, 0.5), (25, 0.5)], ids=str)
def test_how_far_a_value_is_outside_is_a_share_of_the_limit(value: float, excess: float) -> None:
    limit = Limit(least=50, most=200)
    assert limit.excess(value) == pytest.approx(excess)
    assert feasible({"macs": value}, {"macs": limit}) == (excess <= 0)


def test_the_front_leaves_out_what_another_beats_and_the_most_accurate_stands_first(tmp_path: Path) -> None:
    results = results_of(space(tmp_path, **OVER), [A, B, C])
    assert results.front == ("a", "b")
    assert [trial.id for trial in results.trials] == ["a", "b", "c"]


def test_what_exceeds_a_limit_failed_or_was_stopped_is_not_on_the_front(tmp_path: Path) -> None:
    stopped = record("s", 0.9, 100, state="stopped", measured={})
    failed = record("f", 0.9, 100, state="failed", measured={}, reason="no")
    limited = space(tmp_path, **OVER, constraints={"parameters": {"most": 400}})
    results = results_of(limited, [A, B, C, stopped, failed])
    assert results.front == ("b",)
    assert results.knee == "b"
    assert results.trial("knee") == B


def test_hypervolume_is_the_share_that_the_front_covers_as_trials_end(tmp_path: Path) -> None:
    results = results_of(space(tmp_path, **OVER), [A, B, C])
    assert results.reference == {"map50": 0.0, "parameters": 1000.0}
    covered = 0.8 * 0.5 + 0.6 * 0.3
    assert [step.seconds for step in results.hypervolume] == [10, 20, 30]
    assert [step.hypervolume for step in results.hypervolume] == pytest.approx([0.8 * 0.5, covered, covered])


@pytest.mark.parametrize("interrupted", [False, True])
def test_a_stage_was_run_once_and_taken_by_all_other_trials(tmp_path: Path, interrupted: bool) -> None:
    base = {"id": "base", "seconds": 7.0, "cached": False, "parameters": 9}
    first = record("d", 0.1, 900, stages=(base | {"cached": interrupted},))  # who goes on finds its own stage there
    others = [record(name, 0.1, 900, stages=(base | {"cached": True},)) for name in ("e", "f")]
    results = results_of(space(tmp_path, **OVER), [A, first, *others])
    assert (results.stages_run, results.stages_taken) == (2, 2)
    assert (results.seconds_run, results.seconds_taken) == (2 + 7, 2 * 7)


def test_the_key_that_decides_is_the_important_one(tmp_path: Path) -> None:
    both = {"pruned.percent": {"uniform": [0, 1]}, "sparse.sparsity.factor": {"choice": [0.1, 0.2]}}
    values = [(percent / 20, (0.1, 0.2)[percent % 2]) for percent in range(1, 20)]
    records = [
        record(str(p), 1 - p, 1000 - 900 * p, values={"pruned.percent": p, "sparse.sparsity.factor": factor})
        for p, factor in values
    ]
    importance = results_of(space(tmp_path, **{**OVER, "space": both}), records).importance
    for shares in importance.values():
        assert list(shares) == ["pruned.percent", "sparse.sparsity.factor"]
        assert shares["pruned.percent"] > 0.8


def test_places_of_a_list_count_each_by_itself(tmp_path: Path) -> None:
    lists = {"pruned.percents": {"uniform": [0, 1], "length": 3}}
    rolled = np.random.default_rng(0).random((30, 3)).round(4).tolist()
    records = [
        record(str(number), 1 - shares[1], 900, values={"pruned.percents": shares})
        for number, shares in enumerate(rolled)
    ]
    importance = results_of(space(tmp_path, **{**OVER, "space": lists}), records).importance["map50"]
    assert next(iter(importance)) == "pruned.percents[1]"
    assert importance["pruned.percents[1]"] > 0.6


def test_nothing_finished_is_no_front_and_no_error(tmp_path: Path) -> None:
    results = results_of(space(tmp_path, **OVER), [])
    assert (results.front, results.knee, results.hypervolume, results.importance) == ((), None, (), {})
    assert results.trial("knee") is None


def test_results_survive_their_file(tmp_path: Path) -> None:
    results = results_of(space(tmp_path, **OVER), [A, B, C])
    assert validate(type(results), results.model_dump(mode="json"), "tune.json") == results
