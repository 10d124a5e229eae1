"""All that is wrong with a space, told together before anything starts: each trial must be a recipe one can judge."""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from yolo_dist.config import read_yaml
from yolo_dist.errors import ConfigError
from yolo_dist.inputs import shares_problems
from yolo_dist.recipe import Recipe, with_value
from yolo_dist.stage_cache import EVALUATED_ALIKE, WITHOUT_EFFECT
from yolo_dist.tune.objective import problems_of_measures
from yolo_dist.tune.space import Space, Values, recipe_of, up_to_stage

OF_THE_RUN = ("name", "storage", "cluster", "object_store", "tracking")
"""Keys of a recipe on which no result depends."""

SHOWN = 3
"""Mistakes of one path that are told one by one."""


def check_space(space: Space, source: str, others: Callable[[Recipe], Iterable[str]] = lambda _: ()) -> Recipe:
    """Look whether every trial would be a recipe that reports what is asked for; start nothing.

    Args:
        space: to look at.
        source: its file, for messages.
        others: what else is wrong with the recipe that all trials are variations of.

    Returns:
        The recipe as its file has it, up to the stage that is looked at; with the first value of everything where it is
        none without.

    Raises:
        ConfigError: every path that the recipe does not have, every value that it does not take, every objective that
            its stage does not report, all at once.
    """
    values = read_yaml(Path(space.recipe))
    first, problems = _first_values(space, values)
    mistakes = _mistakes(space, values, {})
    if mistakes and _mistakes(space, values, first):
        raise ConfigError(source, [*_problems_in_any_case(space, values, first), *problems])
    recipe = recipe_of(space, values, first if mistakes else {})
    known_stage = space.stage in (None, *(stage.id for stage in recipe.stages))
    upto = up_to_stage(recipe, space.stage) if known_stage else recipe
    elsewhere = list(others(upto))
    problems = [
        *_problems_of_paths(space, recipe),
        *problems,
        *_problems_of_values(space, values, first, recipe),
        *elsewhere,
    ]
    if known_stage:
        sound = space.model_copy(update={"space": {path: space.space[path] for path in first}})
        problems += _problems_elsewhere(sound, values, first if mistakes else {}, others, upto, elsewhere)
    if problems:
        raise ConfigError(source, list(dict.fromkeys(problems)))
    return upto


def _problems_in_any_case(space: Space, recipe: Mapping[str, Any], first: Values) -> Iterator[str]:
    """What is wrong with the recipe's file, with the overrides, and with the first values, where all are wrong."""
    plain, varied = _mistakes(space, recipe, {}), _mistakes(space, recipe, first)
    of_file = _mistakes(space.model_copy(update={"overrides": ()}), recipe, {})
    for mistake in plain:
        if mistake in varied:  # the others are none once the first values are there
            yield f"recipe: {space.recipe}: {mistake}" if mistake in of_file else f"overrides: {mistake}"
    yield from (f"{_culprit(mistake, first, recipe)}: {mistake}" for mistake in varied if mistake not in plain)


def _problems_elsewhere(
    space: Space,
    recipe: Mapping[str, Any],
    values: Values,
    others: Callable[[Recipe], Iterable[str]],
    looked_at: Recipe,
    known: Collection[str],
) -> Iterator[str]:
    """What `others` says of recipes that read something else than the one it was asked about."""
    read = [_read_by(looked_at)]
    for path, distribution in space.space.items():
        for value in distribution.samples:
            if _mistakes(space, recipe, varied := {**values, path: value}):
                continue
            variation = up_to_stage(recipe_of(space, recipe, varied), space.stage)
            if _read_by(variation) not in read:
                read.append(_read_by(variation))
                yield from (
                    f"space.{path}: {value}: {problem}" for problem in others(variation) if problem not in known
                )


def _read_by(recipe: Recipe) -> tuple[Any, ...]:
    """What a recipe names of data and models."""
    data = recipe.dataset, recipe.shards, recipe.train_split, recipe.validation_split
    return *data, recipe.model, recipe.foreign_teachers()


def _problems_of_paths(space: Space, recipe: Recipe) -> Iterator[str]:
    """Paths that would have no effect, or undo that of another."""
    overridden = [item.partition("=")[0] for item in space.overrides]
    ids = [stage.id for stage in recipe.stages]
    left_out = ids[ids.index(space.stage) + 1 :] if space.stage in ids else []
    beside = set(ids) - {*left_out, *_leading_to(recipe, space.stage)} if space.stage in (None, *ids) else set()
    for path in space.space:
        whose, *keys = path.split(".")
        idle = EVALUATED_ALIKE if whose == "evaluation" else {"id", *WITHOUT_EFFECT}
        if whose in OF_THE_RUN or idle & {*keys}:
            yield f"space.{path}: decides nothing that is measured; set it for all trials, in overrides"
        if whose in left_out:
            yield f"space.{path}: is of a stage after {space.stage}, which trials leave out; search another stage"
        if whose in beside:
            yield f"space.{path}: is of a stage on which {space.stage or ids[-1]} does not depend; search another stage"
        yield from (
            f"space.{path}: is searched and overridden{_by(other, path)}; leave one out"
            for other in overridden
            if _overlap(path, other)
        )
        yield from (
            f"space.{path}: is searched as a part of {other} too; leave one out"
            for other in space.space
            if path != other and _overlap(path, other) and len(other) < len(path)
        )


def _leading_to(recipe: Recipe, stage: str | None) -> set[str]:
    """Ids of a stage, the last by default, and of all that it starts and learns from."""
    by_id = {other.id: other for other in recipe.stages}
    found, waiting = set[str](), [stage or recipe.stages[-1].id]
    while waiting:
        for one in recipe.chain_of(by_id[waiting.pop()]):
            teacher = recipe.teacher_stage_of(one)
            waiting += [teacher] if teacher is not None and teacher not in found else []
            found.add(one.id)
    return found


def _by(other: str, path: str) -> str:
    return "" if other == path else f" by {other}"


def _overlap(one: str, other: str) -> bool:
    """Whether one of two paths is the other or lies inside it."""
    shorter, longer = sorted((one.split("."), other.split(".")), key=len)
    return longer[: len(shorter)] == shorter


def _first_values(space: Space, recipe: Mapping[str, Any]) -> tuple[Values, list[str]]:
    """The first value of each path, and paths that lead nowhere."""
    first, problems = Values(), list[str]()
    for path, distribution in space.space.items():
        try:
            with_value(recipe, path, None)
            first[path] = distribution.samples[0]
        except ValueError as error:
            problems.append(f"space.{path}: {error}")
    return first, problems


def _problems_of_values(space: Space, recipe: Mapping[str, Any], first: Values, plain: Recipe) -> Iterator[str]:
    """What is wrong with the recipe of the first value of everything, and with those of other values one by one."""
    base, known = first, _mistakes(space, recipe, first)
    if known:
        culprits = {_culprit(problem, first, recipe) for problem in known}
        yield from (f"{_culprit(problem, first, recipe)}: {problem}" for problem in known)
        sound = {path: value for path, value in first.items() if f"space.{path}" not in culprits}
        base = sound if not _mistakes(space, recipe, sound) else first
    reported = _unreported(space, plain if _mistakes(space, recipe, base) else recipe_of(space, recipe, base))
    for path in first:
        against = dict.fromkeys(
            problem
            for value in space.space[path].samples[1:]
            for problem in _problems_of(space, recipe, {**base, path: value})
            if problem not in known and problem not in reported
        )
        yield from (f"space.{path}: {problem}" for problem in list(against)[:SHOWN])
        if len(against) > SHOWN:
            yield f"space.{path}: and {len(against) - SHOWN} more like these; choose from values that all work"
    yield from reported


def _problems_of(space: Space, recipe: Mapping[str, Any], values: Values) -> list[str]:
    """What is wrong with the recipe of one trial, and with what it would report."""
    return _mistakes(space, recipe, values) or _unreported(space, recipe_of(space, recipe, values))


def _mistakes(space: Space, recipe: Mapping[str, Any], values: Values) -> list[str]:
    try:
        recipe_of(space, recipe, values)
    except ConfigError as error:
        return error.problems
    return []


def _unreported(space: Space, recipe: Recipe) -> list[str]:
    """Why a recipe would not tell what is asked of it, or would fail at its first cut."""
    of_measures = problems_of_measures(recipe, space.stage, [*space.objectives, *space.constraints])
    if any(problem.startswith("stage:") for problem in of_measures):
        return of_measures
    upto = up_to_stage(recipe, space.stage)
    of_stopping = [] if space.stopping is None else space.stopping.problems_of(upto)
    return [*of_measures, *of_stopping, *shares_problems(upto)]


def _culprit(problem: str, values: Values, recipe: Mapping[str, Any]) -> str:
    """Which path a problem is about, that has the key in it; else all of them together."""
    keys = problem.partition(":")[0].split(".")
    if keys[0] == "stages" and len(keys) > 1 and isinstance(stage := recipe["stages"][int(keys[1])], Mapping):
        keys = [str(stage.get("id")), *keys[2:]]
    paths = [path for path in values if _overlap(path, ".".join(keys))]
    paths += [path for path in values if path.split(".")[-1] in keys or path.split(".")[0] == keys[0]]
    paths += [path for path in values if keys[-1] in path.split(".")]
    return f"space.{paths[0]}" if paths else "space"
