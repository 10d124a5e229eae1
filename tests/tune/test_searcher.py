"""Searchers: what they propose, and what they learn from the trials before."""

from pathlib import Path
from statistics import median
from typing import Any

import pytest
from ray.tune.search import Searcher
from searches import record, space

from yolo_dist.tune.searcher import Proposals
from yolo_dist.tune.space import Space, Values, trial_id
from yolo_dist.tune.trial import TrialPlan
from yolo_dist.tune.trial_process import outcome_of

TWO = {"pruned.percent": {"uniform": [0, 0.9]}, "sparse.sparsity.factor": {"loguniform": [1e-4, 1e-1]}}


def proposed(proposals: Proposals) -> Values | None:
    """The next values, of a trial that is left running."""
    suggestion: Any = proposals.suggest(str(proposals.left))
    return None if suggestion == Searcher.FINISHED else suggestion["values"]


def searched(space: Space, loss: Any, count: int) -> list[Values]:
    """The values of a whole search in which each trial's outcome is known at once."""
    proposals, tried = Proposals(space, [], []), []
    for number in range(count):
        values = proposals.suggest(str(number))["values"]
        tried.append(values)
        proposals.on_trial_complete(str(number), loss(values))
    return tried


def test_a_grid_is_proposed_in_its_order_and_ends(tmp_path: Path) -> None:
    proposals = Proposals(space(tmp_path), [], [])
    assert [proposed(proposals) for _ in range(5)] == [*space(tmp_path).grid(), None]


def test_what_is_over_is_not_proposed_again_and_what_was_interrupted_comes_first(tmp_path: Path) -> None:
    first, second, third, fourth = space(tmp_path).grid()
    proposals = Proposals(space(tmp_path), [(second, {"losses": [-0.5, 9], "excess": []})], [fourth])
    assert [proposed(proposals) for _ in range(4)] == [fourth, first, third, None]


@pytest.mark.parametrize("searcher", ["random", "tpe", "nsga2"])
def test_no_point_of_a_small_space_is_proposed_twice_and_it_ends(tmp_path: Path, searcher: str) -> None:
    small = space(tmp_path, searcher=searcher, trials=9)
    proposals = Proposals(small, [], [])
    seen = [values for _ in range(6) if (values := proposed(proposals)) is not None]
    assert sorted(map(trial_id, seen)) == sorted(map(trial_id, small.grid()))


@pytest.mark.parametrize("searcher", ["random", "tpe", "nsga2"])
def test_a_searcher_that_knows_where_the_best_is_still_goes_through_a_small_space(
    tmp_path: Path, searcher: str
) -> None:
    choices = {"pruned.percent": {"grid": [n / 10 for n in range(6)]}, "base.epochs": {"integer": [1, 3]}}
    small = space(tmp_path, space=choices, searcher=searcher, trials=18)

    def outcome(values: Values) -> dict[str, Any]:
        return {"losses": [-values["pruned.percent"], values["base.epochs"]], "excess": []}

    tried = searched(small, outcome, 18)
    assert sorted(map(trial_id, tried)) == sorted(map(trial_id, small.grid()))


def test_the_beginning_of_a_grid_that_nobody_could_go_through(tmp_path: Path) -> None:
    vast = space(tmp_path, space={"pruned.percents": {"grid": [0, 0.3, 0.6, 0.9], "length": 100}}, trials=5)
    proposals = Proposals(vast, [], [])
    seen = [values["pruned.percents"][-2:] for _ in range(5) if (values := proposed(proposals)) is not None]
    assert seen == [[0, 0], [0, 0.3], [0, 0.6], [0, 0.9], [0.3, 0]]


@pytest.mark.parametrize("searcher", ["random", "tpe", "nsga2"])
def test_the_same_seed_proposes_the_same(tmp_path: Path, searcher: str) -> None:
    def loss(values: Values) -> dict[str, Any]:
        return {"losses": [values["pruned.percent"], 1 - values["pruned.percent"]], "excess": []}

    one, other, another = (space(tmp_path, space=TWO, searcher=searcher, trials=12, seed=seed) for seed in (3, 3, 4))
    assert searched(one, loss, 12) == searched(other, loss, 12) != searched(another, loss, 12)


def test_a_search_that_goes_on_draws_anew(tmp_path: Path) -> None:
    both = space(tmp_path, space=TWO, searcher="random", trials=6)
    before = searched(both, lambda _: {"losses": [0, 0], "excess": []}, 3)
    proposals = Proposals(both, [(values, {"losses": [0, 0], "excess": []}) for values in before], [])
    after = [proposed(proposals) for _ in range(4)]
    assert after[-1] is None
    assert not {trial_id(values) for values in before} & {trial_id(values) for values in after[:-1] if values}


def test_tpe_learns_where_the_best_is(tmp_path: Path) -> None:
    def late_distance(searcher: str) -> float:
        one = space(tmp_path, searcher=searcher, trials=40, objectives={"map50": "maximise"}, space=TWO)
        tried = searched(one, lambda values: {"losses": [abs(values["pruned.percent"] - 0.7)], "excess": []}, 40)
        return median(abs(float(values["pruned.percent"]) - 0.7) for values in tried[-20:])

    assert late_distance("tpe") < late_distance("random") / 2


@pytest.mark.parametrize(("searcher", "trials", "times"), [("tpe", 40, 3), ("nsga2", 80, 1.5)])
def test_a_searcher_learns_to_keep_the_limits(tmp_path: Path, searcher: str, trials: int, times: float) -> None:
    def inside(constraints: dict[str, Any]) -> int:
        cuts = space(
            tmp_path,
            searcher=searcher,
            trials=trials,
            space=TWO,
            objectives={"macs": "minimise"},
            constraints=constraints,
        )

        def outcome(values: Values) -> dict[str, Any]:
            excess = [values["pruned.percent"] - 0.5] if constraints else []
            return {"losses": [1 - values["pruned.percent"]], "excess": excess}

        return sum(values["pruned.percent"] <= 0.5 for values in searched(cuts, outcome, trials)[-20:])

    assert inside({"map": {"least": 0.5}}) >= times * inside({})


@pytest.mark.parametrize("searcher", ["tpe", "nsga2"])
def test_a_searcher_begins_to_learn_when_two_of_three_trials_are_stopped(tmp_path: Path, searcher: str) -> None:
    def after_twelve(searcher: str) -> list[Values | None]:
        one = space(tmp_path, space=TWO, searcher=searcher, trials=48)
        plan = TrialPlan(one, {}, str(tmp_path))
        over = [
            record(
                str(number),
                number / 12,
                1000 - number,
                state="stopped" if number % 3 else "finished",
                values={"pruned.percent": number / 20, "sparse.sparsity.factor": 0.01},
            )
            for number in range(12)
        ]
        proposals = Proposals(one, [(trial.values, outcome_of(trial, plan)) for trial in over], [])
        return [proposed(proposals) for _ in range(4)]

    assert after_twelve(searcher) != after_twelve("random")


def test_failed_trials_do_not_disturb(tmp_path: Path) -> None:
    tried = searched(space(tmp_path, space=TWO, searcher="tpe", trials=12), lambda _: {"losses": None}, 12)
    assert len({trial_id(values) for values in tried}) == 12
