"""The space: one YAML file that says which keys of a recipe are searched, for what, and how."""

import hashlib
import json
import math
from collections.abc import Callable, Iterator, Mapping
from typing import Annotated, Any, Literal, Self

import yaml
from annotated_types import Ge, MinLen
from pydantic import Field, ValidationError, model_validator
from upath import UPath

from yolo_dist.config import Config, problems_of, read_yaml, validate
from yolo_dist.errors import ConfigError
from yolo_dist.layout import SPACE_FILE
from yolo_dist.recipe import Recipe, StageId, make_recipe, with_value
from yolo_dist.storage import local_copy
from yolo_dist.tune.distribution import Distribution
from yolo_dist.tune.objective import Limits, Objectives
from yolo_dist.tune.stopping import StoppingConfig

Values = dict[str, Any]
"""What one trial puts into the recipe, by path."""


class Space(Config):
    """Everything a search needs to know."""

    name: StageId
    """Name of the search and of its folder in `storage`."""
    recipe: str
    """YAML file of the recipe that every trial is a variation of."""
    overrides: tuple[str, ...] = ()
    """`key=value` or `stage.key=value` that hold for every trial."""
    space: Annotated[dict[str, Distribution], MinLen(1)]
    """Distributions by path: `key` or `stage.key`, as in overrides."""
    objectives: Objectives
    """Measures of the results: accuracies `maximise`, costs `minimise`; several make a Pareto front."""
    constraints: Limits = Field(default_factory=dict)
    """Limits of measures: a trial outside counts for nothing, and searchers learn to stay inside."""
    stage: StageId | None = None
    """Stage whose row of the results is looked at, the last by default; trials leave out those after it."""
    searcher: Literal["random", "grid", "tpe", "nsga2"] = "tpe"
    """How the next trial is chosen."""
    trials: Annotated[int, Ge(1)] | None = None
    """How many; may be left out for `grid`, which then tries everything."""
    concurrent: Annotated[int, Ge(1)] | None = None
    """Trials at a time; by default as many as the cluster has room for."""
    seed: Annotated[int, Ge(0)] = 0
    """Of what searchers draw."""
    stopping: StoppingConfig | None = None
    """Gives up trials that fall behind; none by default."""
    share_stages: bool = True
    """Stages that several trials have in common run once."""
    max_failures: Annotated[int, Ge(0)] = 2
    """How often a trial goes on by itself after its process or node was lost, or the store was away."""
    storage: str = "runs"
    """Path or URL under which searches are kept; all nodes reach it."""

    @model_validator(mode="after")
    def _trials_that_end(self) -> Self:
        if self.searcher != "grid" and self.trials is None:
            raise ValueError("trials: a number is needed for every searcher but grid")
        if self.searcher == "grid" and self.grid_size is None:
            endless = [path for path, distribution in self.space.items() if distribution.options is None]
            raise ValueError(f"searcher: grid needs grid, choice or integer, not the intervals of {', '.join(endless)}")
        return self

    @property
    def grid_size(self) -> int | None:
        """Points of the space; None where there are infinitely many."""
        options = [distribution.options for distribution in self.space.values()]
        if any(of_one is None for of_one in options):
            return None
        lengths = [distribution.length or 1 for distribution in self.space.values()]
        return math.prod(int(len(of_one or ()) ** length) for of_one, length in zip(options, lengths, strict=True))

    @property
    def most_trials(self) -> int:
        """Trials that the search makes at most."""
        numbers = [number for number in (self.trials, self.grid_size) if number is not None]
        return min(numbers)

    def grid(self) -> Iterator[Values]:
        """All points, the last path fastest: neighbours share the earlier stages of a space written in their order."""
        return map(self.point, range(self.grid_size or 0))

    def point(self, number: int) -> Values:
        """One point of the grid, by its place in it."""
        values: Values = {}
        for path, distribution in reversed(self.space.items()):
            options, drawn = _raw(distribution), list[Any]()
            for _ in range(distribution.length or 1):
                number, place = divmod(number, len(options))
                drawn.insert(0, options[place])
            values[path] = distribution.value_of(drawn)
        return {path: values[path] for path in self.space}

    def to_yaml(self) -> str:
        """The space as resolved, ready to be searched again."""
        return yaml.safe_dump(self.model_dump(mode="json", exclude_none=True), sort_keys=False, allow_unicode=True)


def _raw(distribution: Distribution) -> list[Any]:
    """What is drawn for every option of one place."""
    options = distribution.options or ()
    return list(options) if distribution.integer is not None else list(range(len(options)))


def trial_id(values: Values) -> str:
    """8 hex digits that the trial of these values has in every search."""
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:8]


def read_space(
    path: str, overrides: list[str] | None = None, others: Callable[[Space, str], object] | None = None
) -> Space:
    """A space's file with `key=value` overrides: of the space's own keys, and all others of the recipe.

    Args:
        path: of the file.
        overrides: win over what the file says.
        others: raises other mistakes, such as `check_search`. It is asked where there are some already, about what is
            left of the space without them, so that all are told at once.

    Raises:
        ConfigError: everything that is wrong with it by itself, and what `others` adds.
    """
    values, of_recipe, problems = read_yaml(path), list[str](), list[str]()
    for item in overrides or []:
        key, equals, text = item.partition("=")
        if not equals:
            problems.append(f"{item}: an override reads key=value or stage.key=value")
        elif key.split(".")[0] in Space.model_fields:
            values, problem = _overridden(values, key, text)
            problems += [f"{item}: {problem}"] if problem else []
        else:
            of_recipe.append(item)
    if of_recipe and isinstance(values.get("overrides", []), list):
        values = values | {"overrides": [*values.get("overrides", []), *of_recipe]}
    space, own = _sound_part(values)
    problems += own
    if problems and space is not None and others is not None:
        try:
            others(space, path)
        except ConfigError as error:
            problems += error.problems
    if problems or space is None:
        raise ConfigError(path, list(dict.fromkeys(problems)))
    return space


STAND_INS: dict[str, Any] = {
    "name": "space",
    "space": {"seed": {"choice": [0]}},
    "objectives": {"map50": "maximise"},
    "trials": 1,
}
"""What a space cannot be without, while the rest of it is looked at."""


def _sound_part(values: Mapping[str, Any]) -> tuple[Space | None, list[str]]:
    """A space without what is wrong in it, and what that is; None where too little is left to be looked at."""
    try:
        space = Space.model_validate(values)
    except ValidationError as error:
        sound = values
        for place in dict.fromkeys(item["loc"][:2] for item in error.errors()):
            sound = _without(sound, *place)
        rest, more = _sound_part(sound) if sound != values else (None, [])
        return rest, problems_of(error) + more
    return space if values["space"] is not STAND_INS["space"] else space.model_copy(update={"space": {}}), []


def _without(values: Mapping[str, Any], key: Any = None, entry: Any = None) -> dict[str, Any]:
    """A space's values without an entry of one of its mappings, or without all that it says under a key."""
    if key is None:  # how it is searched: searcher and number of trials do not go together
        return {**values, "searcher": "random", "trials": 1}
    entries = values.get(key)
    rest = {name: value for name, value in values.items() if name != key}
    if isinstance(entries, Mapping) and entry in entries and len(entries) > 1:
        return rest | {key: {name: entries[name] for name in entries if name != entry}}
    return rest | ({key: STAND_INS[key]} if key in STAND_INS else {})


def _overridden(values: dict[str, Any], key: str, text: str) -> tuple[dict[str, Any], str]:
    """A space's values with one of its own set, a distribution by `space.PATH`; and what is wrong with it."""
    try:
        value = yaml.safe_load(text)
        if not key.startswith("space."):
            return with_value(values, key, value), ""
    except (ValueError, yaml.YAMLError) as error:
        return values, " ".join(str(error).split())
    distributions = values.get("space") or {}
    if not isinstance(distributions, Mapping):
        return values, ""  # a mistake of the file, which is told as such
    return {**values, "space": {**distributions, key.removeprefix("space."): value}}, ""


def searched_space(search: UPath) -> Space:
    """The space that the search in a folder began with.

    Raises:
        ConfigError: its file is damaged.
    """
    with local_copy(search / SPACE_FILE) as file:
        return validate(Space, read_yaml(file), str(search / SPACE_FILE))


def recipe_of(space: Space, recipe: Mapping[str, Any], values: Values) -> Recipe:
    """The recipe of one trial.

    Args:
        space: of the search.
        recipe: what its recipe's file says.
        values: of the trial.

    Raises:
        ConfigError: everything that is wrong with it.
    """
    return make_recipe(_varied(recipe, values), space.recipe, list(space.overrides))


def _varied(recipe: Mapping[str, Any], values: Values) -> dict[str, Any]:
    varied = dict(recipe)
    for path, value in values.items():
        varied = with_value(varied, path, value)
    return varied


def up_to_stage(recipe: Recipe, stage: str | None) -> Recipe:
    """A recipe without the stages after one of them; all of it for None."""
    ids = [other.id for other in recipe.stages]
    return recipe if stage is None else recipe.model_copy(update={"stages": recipe.stages[: ids.index(stage) + 1]})
