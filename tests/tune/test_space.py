"""Spaces: what they draw, and everything that is wrong with one at once."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from searches import prepare, space

from yolo_dist.config import read_yaml, validate
from yolo_dist.errors import ConfigError
from yolo_dist.recipe import Recipe
from yolo_dist.tune.check import check_space
from yolo_dist.tune.distribution import Distribution
from yolo_dist.tune.space import Space, read_space, recipe_of, trial_id, up_to_stage


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return prepare(tmp_path_factory.mktemp("space"))


@pytest.mark.parametrize(
    ("values", "drawn", "value"),
    [
        pytest.param({"uniform": [0, 1]}, [0.123456], 0.1235, id="a number a person can type"),
        pytest.param({"loguniform": [1e-4, 1e-2]}, [0.00012345678], 0.0001235, id="by orders of magnitude"),
        pytest.param({"uniform": [0.12347, 0.2]}, [0.12347], 0.1235, id="rounded"),
        pytest.param({"uniform": [0, 0.12347]}, [0.12347], 0.12347, id="within its bounds even if rounded"),
        pytest.param({"uniform": [0.9, 0.9003]}, [0.90012342], 0.9001234, id="as exactly as its interval is narrow"),
        pytest.param({"integer": [2, 8]}, [5], 5, id="a whole number"),
        pytest.param({"choice": [None, {"teacher": "base"}]}, [1], {"teacher": "base"}, id="a block"),
        pytest.param({"uniform": [0, 1], "length": 3}, [0.1, 0.2, 0.3], [0.1, 0.2, 0.3], id="a list"),
    ],
)
def test_what_is_drawn_becomes_a_value(values: dict[str, Any], drawn: list[Any], value: Any) -> None:
    distribution = validate(Distribution, values, "test")
    assert distribution.value_of(drawn) == value
    assert distribution.value_of(distribution.drawn_for(value)) == value


def test_a_block_whose_keys_are_numbers_equals_what_is_read_again(folder: Path) -> None:
    layers = {"tuned.distillation": {"choice": [None, {"teacher": "base", "layers": {0: 0}}]}}
    one = space(folder, space=layers)
    check_space(one, "space.yaml")
    assert validate(Space, yaml.safe_load(one.to_yaml()), "space.yaml") == one
    trial = list(one.grid())[1]
    assert one.space["tuned.distillation"].drawn_for(json.loads(json.dumps(trial))["tuned.distillation"]) == [1]
    recipe = recipe_of(one, read_yaml(folder / "recipe.yaml"), trial)
    assert recipe.stages[2].distillation.layers == {0: 0}  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        ({"uniform": [1, 1]}, "uniform needs a finite low end below its high end, not [1, 1]"),
        ({"uniform": [0, float("inf")]}, "uniform needs a finite low end below its high end, not [0, inf]"),
        ({"loguniform": [0, 1]}, "loguniform needs a low end above 0, not 0"),
        ({"integer": [8, 2]}, "integer needs a finite low end below its high end, not [8, 2]"),
        ({"integer": [0, 10**20]}, "integer needs ends between -2^53 and 2^53, not [0, 1e+20]"),
        ({"grid": [0.1, 0.2, 0.1]}, "grid names 0.1 twice"),
        ({"choice": [None, None]}, "choice names None twice"),
        ({"choice": []}, "choice: Tuple should have at least 1 item after validation, not 0 (got [])"),
        ({}, "give one of uniform, loguniform, integer, choice, grid, not none"),
        ({"grid": [1], "choice": [2]}, "give one of uniform, loguniform, integer, choice, grid, not choice and grid"),
    ],
)
def test_a_distribution_with_wrong_bounds_is_refused(values: dict[str, Any], problem: str) -> None:
    with pytest.raises(ConfigError) as refused:
        validate(Distribution, values, "test")
    assert refused.value.problems == [problem]


def test_a_grid_has_every_combination_the_last_path_fastest(folder: Path) -> None:
    points = [tuple(point.values()) for point in space(folder).grid()]
    assert points == [(0.01, 0.3), (0.01, 0.5), (0.02, 0.3), (0.02, 0.5)]
    assert space(folder).most_trials == len(points)
    assert space(folder, trials=3).most_trials == 3


def test_a_grid_of_a_list_has_every_list(folder: Path) -> None:
    of_lists = space(folder, space={"base.multi_scale": {"integer": [1, 2], "length": 2}})
    assert [point["base.multi_scale"] for point in of_lists.grid()] == [[1, 1], [1, 2], [2, 1], [2, 2]]
    assert of_lists.grid_size == 4


def test_a_trial_is_known_by_its_values_alone() -> None:
    assert trial_id({"a.b": 1, "c": [2]}) == trial_id({"c": [2], "a.b": 1})
    assert trial_id({"a.b": 1}) != trial_id({"a.b": 2})


def test_values_go_where_overrides_would_put_them(folder: Path) -> None:
    values = {"base.optimizer.learning_rate": 0.02, "pruned.percent": 0.3, "image_size": 96}
    recipe = recipe_of(space(folder), read_yaml(folder / "recipe.yaml"), values)
    assert recipe.stages[0].optimizer.learning_rate == 0.02  # type: ignore[union-attr]
    assert recipe.stages[1].percent == 0.3  # type: ignore[union-attr]
    assert recipe.image_size == (96, 96)


def test_overrides_are_the_spaces_where_it_has_the_key_and_else_the_recipes(folder: Path) -> None:
    (folder / "space.yaml").write_text(space(folder).to_yaml())
    read = read_space(str(folder / "space.yaml"), ["trials=2", "tuned.epochs=3", "space.pruned.percent={grid: [0.1]}"])
    assert read.trials == 2
    assert read.space["pruned.percent"].grid == (0.1,)
    assert read.overrides == ("tuned.epochs=3",)
    assert read_space(str(folder / "space.yaml"), ["recipe=other.yaml"]).recipe == "other.yaml"


def test_stages_after_the_one_that_is_looked_at_are_left_out(folder: Path) -> None:
    recipe = check_space(space(folder, stage="pruned"), "space.yaml")
    assert [stage.id for stage in recipe.stages] == ["base", "pruned"]
    assert up_to_stage(recipe, None) is recipe


def test_everything_that_is_wrong_is_told_at_once(folder: Path) -> None:
    wrong = space(
        folder,
        space={
            "base.optimizer.learning_rat": {"grid": [0.1]},
            "pruned.percent": {"uniform": [0.5, 1.5]},
            "pruned.method": {"choice": ["normal", "norml"]},
            "stages.pruned": {"choice": [1]},
            "tuned.epochs": {"integer": [1, 2]},
        },
        overrides=["tuned.epochs=3"],
        searcher="tpe",
        trials=4,
        stopping={"stage": "pruned"},
    )
    with pytest.raises(ConfigError) as refused:
        check_space(wrong, "space.yaml")
    assert [problem.partition(" (got")[0] for problem in refused.value.problems] == [
        "space.tuned.epochs: is searched and overridden; leave one out",
        "space.stages.pruned: name a stage by its id, such as base.epochs=3",
        "space.base.optimizer.learning_rat: stages.0.optimizer.learning_rat: unknown key",
        "space.pruned.percent: stages.1.percent: Input should be less than 1",
        "space.pruned.method: stages.1.method: unknown method; there are eagle-eye, layer, layer-channel, "
        "layer-channel-regular, layerwise, normal, regular, shortcut, slim",
        "stopping.stage: the recipe has no training stage pruned",
    ]


def problems_of(action: Callable[[], object]) -> list[str]:
    """What a refusal says; nothing where there is none."""
    try:
        action()
    except ConfigError as error:
        return error.problems
    return []


def without_evaluations(values: dict[str, Any]) -> None:
    values["overrides"] = ["tuned.evaluate_every=0"]


def quantised(values: dict[str, Any]) -> None:
    values["overrides"] = ["tuned.quantization={}"]
    values["objectives"] = {"latency_ms": "minimise"}


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        pytest.param(lambda values: values.update(objectives={"map5": "maximise"}), "objectives.map5", id="objective"),
        pytest.param(lambda values: values.update(objectives={}), "objectives", id="no objective"),
        pytest.param(lambda values: values.update(stage="tund"), "stage: the recipe has no stage tund", id="stage"),
        pytest.param(quantised, "latency_ms: stage tuned simulates", id="what the stage does not report"),
        pytest.param(without_evaluations, "stopping: stage tuned is evaluated only at its end", id="no evaluation"),
        pytest.param(lambda values: values.update(stopping={"grace": 9}), "stopping.grace: 9 is more than", id="grace"),
        pytest.param(
            lambda values: values.update(stopping={"grace": 3}, overrides=["tuned.epochs=3"]),
            "stopping: stage tuned is not evaluated from epoch 3 on before its end",
            id="nothing left to stop",
        ),
        pytest.param(lambda values: values.update(searcher="tpe"), "trials: a number is needed", id="no end"),
        pytest.param(
            lambda values: values.update(space={"pruned.percent": {"uniform": [0, 0.5]}}),
            "searcher: grid needs grid, choice or integer, not the intervals of pruned.percent",
            id="grid of an interval",
        ),
        pytest.param(
            lambda values: values.update(constraints={"map50": {}}), "constraints.map50: give least", id="no limit"
        ),
        pytest.param(
            lambda values: values.update(constraints={"map50": {"least": 50}}),
            "constraints: map50 is a share of 1, which is never 50",
            id="percent in place of a share",
        ),
        pytest.param(
            lambda values: values.update(constraints={"parameters": {"most": -1}}),
            "constraints: parameters is never below 0, so not at most -1",
            id="a limit that nothing keeps",
        ),
    ],
)
def test_a_search_that_cannot_work_is_refused(
    folder: Path, change: Callable[[dict[str, Any]], None], problem: str
) -> None:
    values = yaml.safe_load(space(folder).to_yaml()) | {"stopping": {}}
    change(values)
    with pytest.raises(ConfigError, match=problem.replace(".", r"\.")):
        check_space(validate(Space, values, "space.yaml"), "space.yaml")


LAYERWISE = ["pruned.method=layerwise"]
FRACTION = "Input should be a valid integer, got a number with a fractional part"


@pytest.mark.parametrize(
    ("changes", "problems"),
    [
        pytest.param(
            {"space": {"tuned.optimizer.momentum": {"grid": [0.9]}}, "overrides": ["tuned.optimizer={}"]},
            ["space.tuned.optimizer.momentum: is searched and overridden by tuned.optimizer; leave one out"],
            id="an override of all that it is a part of",
        ),
        pytest.param(
            {"space": {"tuned.optimizer": {"grid": [{}]}}, "overrides": ["tuned.optimizer.momentum=0.8"]},
            ["space.tuned.optimizer: is searched and overridden by tuned.optimizer.momentum; leave one out"],
            id="an override of a part of it",
        ),
        pytest.param(
            {"space": {"tuned.optimizer.momentum": {"grid": [0.9]}, "tuned.optimizer": {"grid": [{}]}}},
            ["space.tuned.optimizer.momentum: is searched as a part of tuned.optimizer too; leave one out"],
            id="a part of another path",
        ),
        pytest.param(
            {"space": {"pruned.percent": {"grid": [0.1]}, "base.epochs": {"grid": [1]}}, "stage": "base"},
            ["space.pruned.percent: is of a stage after base, which trials leave out; search another stage"],
            id="a stage that trials leave out",
        ),
        pytest.param(
            {"space": {"pruned.percent": {"grid": [0.1]}}, "overrides": ["tuned.from=base"]},
            ["space.pruned.percent: is of a stage on which tuned does not depend; search another stage"],
            id="a stage beside the way to the searched one",
        ),
        pytest.param(
            {
                "space": {"pruned.percent": {"grid": [0.1]}},
                "overrides": ["tuned.from=base", "tuned.distillation={teacher: pruned}"],
            },
            [],
            id="a stage that teaches the searched one",
        ),
        pytest.param(
            {"space": {"evaluation.batch_size": {"grid": [4]}, "base.checkpoint_every": {"grid": [2]}}},
            [
                "space.evaluation.batch_size: decides nothing that is measured; set it for all trials, in overrides",
                "space.base.checkpoint_every: decides nothing that is measured; set it for all trials, in overrides",
            ],
            id="settings without effect",
        ),
        pytest.param(
            {"space": {"base.epochs": {"uniform": [1, 6]}}, "searcher": "random", "trials": 2},
            [f"space.base.epochs: stages.0.epochs: {FRACTION} (got 2.85)"],
            id="fractions for a whole number",
        ),
        pytest.param(
            {"space": {"tuned.epochs": {"grid": [3, 4]}, "base.epochs": {"grid": [0, 4]}}},
            ["space.base.epochs: stages.0.epochs: Input should be greater than or equal to 1 (got 0)"],
            id="the stage and not another one with the same key",
        ),
        pytest.param(
            {"space": {"prunde.percent": {"grid": [0.1]}}, "overrides": ["base.epoch=3"]},
            [
                "overrides: stages.0.epoch: unknown key",
                "space.prunde.percent: prunde: unknown key",
            ],
            id="an override and a path",
        ),
        pytest.param(
            {"space": {"cluster.workers": {"choice": [0, 99]}}},
            ["space.cluster.workers: decides nothing that is measured; set it for all trials, in overrides"],
            id="what no result depends on",
        ),
        pytest.param(
            {"space": {"tuned.quantization": {"choice": [None, {}]}}, "objectives": {"latency_ms": "minimise"}},
            [
                "space.tuned.quantization: latency_ms: stage tuned simulates a quantised network and "
                "reports no latency; add an export stage, and name it with stage:"
            ],
            id="what one of the choices does not report",
        ),
        pytest.param(
            {"space": {"tuned.evaluate_every": {"integer": [0, 1]}, "tuned.epochs": {"grid": [4]}}, "stopping": {}},
            ["stopping: stage tuned is evaluated only at its end; give it another evaluate_every"],
            id="stopping by what the first value leaves out",
        ),
        pytest.param(
            {"space": {"image_size": {"integer": [64, 128]}}},
            [
                *(
                    "space.image_size: image_size: width and height must be positive multiples of 32, "
                    f"not {size}×{size} (got {size})"
                    for size in (65, 66, 67)
                ),
                "space.image_size: and 59 more like these; choose from values that all work",
            ],
            id="most integers of a range",
        ),
        pytest.param(
            {"space": {"pruned.percents": {"grid": [0.1, 0.2], "length": 2}}, "overrides": LAYERWISE},
            [
                "pruned.percents: percents has 2 shares, and in scope classic there are 3 sets of channels to cut, "
                "created by layers 0, 1, 3"
            ],
            id="not a share for each set of channels",
        ),
        pytest.param(
            {"space": {"pruned.percents": {"grid": [0.1, 0.2], "length": 3}}, "overrides": LAYERWISE},
            [],
            id="a share for each set of channels",
        ),
    ],
)
def test_no_value_of_a_space_may_fail_or_do_nothing(folder: Path, changes: dict[str, Any], problems: list[str]) -> None:
    assert problems_of(lambda: check_space(space(folder, **changes), "space.yaml")) == problems


def test_a_recipe_need_not_be_one_without_the_values_that_are_searched(folder: Path) -> None:
    shares = {"pruned.percents": {"uniform": [0, 0.9], "length": 3}}
    lists = space(folder, space=shares, overrides=LAYERWISE, searcher="tpe", trials=2)
    assert check_space(lists, "space.yaml").stages[1].percents == (0, 0, 0)  # type: ignore[union-attr]


def test_what_other_values_read_is_looked_at_too(folder: Path) -> None:
    def without_nowhere(recipe: Recipe) -> list[str]:
        return ["nothing is there"] if "nowhere" in str(recipe.shards) else []

    shards = {"shards": {"choice": [str(folder / "shards"), "nowhere"]}}
    problems = problems_of(lambda: check_space(space(folder, space=shards), "space.yaml", without_nowhere))
    assert problems == ["space.shards: nowhere: nothing is there"]


def test_a_teacher_inside_of_a_block_is_looked_at(folder: Path) -> None:
    def without_teachers(recipe: Recipe) -> list[str]:
        return [f"no bundle {teacher}" for teacher in recipe.foreign_teachers()]

    blocks = {"tuned.distillation": {"choice": [None, {"teacher": "base"}, {"teacher": "bsae"}]}}
    (problem,) = problems_of(lambda: check_space(space(folder, space=blocks), "space.yaml", without_teachers))
    assert problem.endswith(": no bundle bsae")


def test_a_number_of_trials_that_is_none_is_one_mistake(folder: Path, tmp_path: Path) -> None:
    values = yaml.safe_load(space(folder).to_yaml()) | {"searcher": "random", "trials": 0}
    (tmp_path / "space.yaml").write_text(yaml.safe_dump(values))
    (problem,) = problems_of(lambda: read_space(str(tmp_path / "space.yaml"), others=check_space))
    assert problem.startswith("trials: Input should be greater than or equal to 1")


@pytest.mark.parametrize("stages", [["base"], {"base": 1}, "base", None], ids=str)
def test_stages_that_are_none_are_told(folder: Path, tmp_path: Path, stages: Any) -> None:
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(read_yaml(folder / "recipe.yaml") | {"stages": stages}))
    odd = space(folder, recipe=str(tmp_path / "recipe.yaml"))
    assert any("stages" in problem for problem in problems_of(lambda: check_space(odd, "space.yaml")))


@pytest.mark.parametrize(
    ("objectives", "problem"),
    [
        ({"map50": "minimise"}, "objectives: map50 can only be maximised here"),
        ({"map": "maximise", "parameters": "maximise"}, "objectives: parameters can only be minimised here"),
    ],
)
def test_an_objective_gets_better_in_one_direction_only(folder: Path, objectives: dict[str, str], problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        space(folder, objectives=objectives)


def test_what_else_is_wrong_is_looked_for_in_what_is_sound_of_a_space(folder: Path, tmp_path: Path) -> None:
    sound = yaml.safe_load(space(folder).to_yaml())
    wrong = {"space": {"pruned.percent": {"uniform": [2, 1]}}, "objectives": {"map5": "maximise"}, "colour": "red"}
    (tmp_path / "space.yaml").write_text(yaml.safe_dump(sound | wrong | {"stage": "tund"}))
    problems = problems_of(lambda: read_space(str(tmp_path / "space.yaml"), ["searcher=tpe"], check_space))
    assert [problem.partition(" ")[0] for problem in problems] == [
        "space.pruned.percent:",
        "objectives.map5.[key]:",
        "colour:",
        "trials:",
        "stage:",
    ]


def test_distributions_that_are_no_mapping_are_told_with_an_override_of_one(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "space.yaml").write_text(yaml.safe_dump(yaml.safe_load(space(folder).to_yaml()) | {"space": [1]}))
    problems = problems_of(lambda: read_space(str(tmp_path / "space.yaml"), ["space.seed={grid: [1]}"]))
    assert problems == ["space: Input should be a valid dictionary (got [1])"]
