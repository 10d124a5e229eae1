"""The recipe: one YAML file that says which stages turn which data into which detector."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, Literal

import yaml
from pydantic import Field, ValidationError, ValidationInfo, ValidatorFunctionWrapHandler, field_validator
from pydantic_core import ErrorDetails, InitErrorDetails, PydanticCustomError

from yolo_dist.compress.pruning import PruneConfig
from yolo_dist.compress.quantization import QuantizationConfig, QuantizeConfig
from yolo_dist.config import Config, ImageSize, read_yaml, validate
from yolo_dist.dataset import Dataset, Mix, Shards, misplaced_shards
from yolo_dist.errors import ConfigError
from yolo_dist.evaluate.evaluator import EvaluationConfig
from yolo_dist.export.onnx import ExportConfig
from yolo_dist.model import ModelSource
from yolo_dist.object_store import ObjectStoreConfig
from yolo_dist.stage_order import Problem, order_problems
from yolo_dist.train.cluster import ClusterConfig
from yolo_dist.train.config import TrainConfig
from yolo_dist.train.tracking import TrackingConfig

KEYS_OF_SPACES = {"recipe", "space"}
"""Keys of a search space that no recipe has."""

StageId = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]


class Placed(Config):
    """A stage's place in a recipe."""

    id: StageId
    from_: StageId | None = Field(default=None, alias="from")
    """Stage to start from; the one before by default."""


class TrainStage(Placed, TrainConfig):
    """A training stage in a recipe."""

    kind: Literal["train"]

    def settings(self) -> TrainConfig:
        """The stage without its place in the recipe."""
        return self.part(TrainConfig)


class PruneStage(Placed, PruneConfig):
    """A pruning stage in a recipe."""

    kind: Literal["prune"]

    def settings(self) -> PruneConfig:
        """The stage without its place in the recipe."""
        return self.part(PruneConfig)


class QuantizeStage(Placed, QuantizeConfig):
    """A stage in a recipe that quantises without training."""

    kind: Literal["quantize"]

    def settings(self) -> QuantizeConfig:
        """The stage without its place in the recipe."""
        return self.part(QuantizeConfig)


class ExportStage(Placed, ExportConfig):
    """A stage in a recipe that writes a file for other runtimes; no stage starts from it."""

    kind: Literal["export"]

    def settings(self) -> ExportConfig:
        """The stage without its place in the recipe."""
        return self.part(ExportConfig)


Stage = Annotated[TrainStage | PruneStage | QuantizeStage | ExportStage, Field(discriminator="kind")]


class Recipe(Config):
    """Everything a run needs to know."""

    name: StageId
    """Name of the run and of its folder in `storage`."""
    dataset: Dataset
    shards: Shards
    model: ModelSource
    image_size: ImageSize = (416, 416)
    """Input of the network in pixels: one number, or [width, height]."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Seed of the network's first weights and of computed anchors; stages have their own."""
    train_split: str = "train"
    validation_split: str = "val"
    stages: tuple[Stage, ...]
    evaluation: EvaluationConfig = Field(default_factory=EvaluationConfig)
    cluster: ClusterConfig = Field(default_factory=ClusterConfig)
    object_store: ObjectStoreConfig = Field(default_factory=ObjectStoreConfig)
    storage: str = "runs"
    """Path or URL under which runs are kept."""
    tracking: TrackingConfig = Field(default_factory=TrackingConfig)

    @field_validator("shards")
    @classmethod
    def _of_the_dataset(cls, shards: str | dict[str, str], others: ValidationInfo) -> str | dict[str, str]:
        if "dataset" in others.data and (mistakes := list(misplaced_shards(others.data["dataset"], shards))):
            raise ValidationError.from_exception_data("shards", mistakes)
        return shards

    @field_validator("stages", mode="wrap")
    @classmethod
    def _in_order(cls, stages: Any, parse: ValidatorFunctionWrapHandler) -> Any:
        """Adds what is wrong with the stages' order to what is wrong with each of them."""
        mistakes: list[InitErrorDetails] = [_as_mistake(*problem) for problem in order_problems(stages)]
        try:
            parsed = parse(stages)
        except ValidationError as error:
            mistakes = [_details(problem) for problem in error.errors()] + mistakes
        else:
            mistakes += [_as_mistake(*problem) for problem in _other_ways_to_quantize(parsed)]
        if mistakes:
            raise ValidationError.from_exception_data("stages", mistakes)
        if not parsed:
            raise ValueError("a recipe needs at least one stage")
        return parsed

    @property
    def shards_of(self) -> dict[str, str]:
        """For each card, one or several, where it was converted to."""
        if isinstance(self.dataset, Mix):
            assert isinstance(self.shards, dict)
            return {card: self.shards[card] for card in self.dataset.mix}
        assert isinstance(self.shards, str)
        return {self.dataset: self.shards}

    def start_of(self, stage: Stage) -> str | None:
        """Id of the stage that `stage` starts from; None for the recipe's model."""
        if stage.from_ is not None:
            return stage.from_
        ids = [other.id for other in self.stages]
        position = ids.index(stage.id)
        return ids[position - 1] if position else None

    def chain_of(self, stage: Stage) -> Iterator[Stage]:
        """The stage, the one that it starts from, and so on back to the recipe's model."""
        by_id = {other.id: other for other in self.stages}
        origin: str | None = stage.id
        while origin is not None:
            yield by_id[origin]
            origin = self.start_of(by_id[origin])

    def teacher_stage_of(self, stage: Stage) -> str | None:
        """Id of the earlier stage that teaches `stage`; None where it has no teacher, or one from elsewhere."""
        teacher = teacher_named_by(stage)
        return teacher if any(teacher == other.id for other in self.stages) else None

    def foreign_teachers(self) -> list[str]:
        """Paths and URLs of the bundles that teach a stage and are not made by this recipe."""
        named = {teacher_named_by(stage) for stage in self.stages if self.teacher_stage_of(stage) is None}
        return sorted(teacher for teacher in named if teacher is not None)

    def to_yaml(self) -> str:
        """The recipe as resolved, ready to be run again."""
        values = self.model_dump(mode="json", by_alias=True, exclude_none=True)
        return yaml.safe_dump(values, sort_keys=False, allow_unicode=True)


def teacher_named_by(stage: Stage) -> str | None:
    """The teacher of a distilled stage, as the recipe names it."""
    return stage.distillation.teacher if isinstance(stage, TrainStage) and stage.distillation is not None else None


def read_recipe(path: str, overrides: list[str] | None = None) -> Recipe:
    """A recipe file with `key=value` overrides; `stage.key=value` reaches into the stage of that id.

    Raises:
        ConfigError: everything that is wrong with it; a search space is told to be one in one line.
    """
    values = read_yaml(path, "launch")
    if is_space(values):
        raise ConfigError(path, [f"is a search space, not a recipe; `yolo-dist tune {path}` searches it"])
    return make_recipe(values, path, overrides)


def is_space(values: Mapping[str, Any]) -> bool:
    """Whether a file is a search space: it says of which recipe, and has no stages of its own."""
    return "stages" not in values and not KEYS_OF_SPACES.isdisjoint(values)


def is_recipe(values: Mapping[str, Any]) -> bool:
    """Whether a file is a recipe, and no search space."""
    return "stages" in values and KEYS_OF_SPACES.isdisjoint(values)


def make_recipe(values: Mapping[str, Any], source: str, overrides: list[str] | None = None) -> Recipe:
    """A recipe from its values; see `read_recipe`."""
    problems: list[str] = []
    for item in overrides or []:
        try:
            values = _overridden(values, item)
        except ValueError as error:
            problems.append(f"{item}: {error}")
    try:
        recipe = validate(Recipe, values, source)
    except ConfigError as error:
        raise ConfigError(source, problems + error.problems) from None
    if problems:
        raise ConfigError(source, problems)
    return recipe


def _overridden(values: Mapping[str, Any], item: str) -> dict[str, Any]:
    """A recipe's values with one `key=value` or `stage.key=value` applied."""
    path, _, text = item.partition("=")
    if "=" not in item or not all(path.split(".")):
        raise ValueError("an override reads key=value or stage.key=value")
    try:
        return with_value(values, path, yaml.safe_load(text))
    except yaml.YAMLError:
        raise ValueError(f"{text!r} is not a YAML value") from None


def with_value(values: Mapping[str, Any], path: str, value: Any) -> dict[str, Any]:
    """A recipe's values with that of one `key` or `stage.key` set; whether the recipe has it is not looked at.

    Raises:
        ValueError: the path names a stage in no way that a recipe knows.
    """
    keys = path.split(".")
    if not all(keys):
        raise ValueError("a path reads key or stage.key")
    if keys[0] == "stages":
        raise ValueError("name a stage by its id, such as base.epochs=3")
    stages = values.get("stages")
    entries = stages if isinstance(stages, list) else []
    ids = [entry["id"] for entry in entries if isinstance(entry, dict) and isinstance(entry.get("id"), str)]
    # an id may have dots, and another stage's be its beginning
    name = max((id for id in ids if path.startswith(f"{id}.")), key=len, default=None)
    if name is None:
        return _with(values, keys, value)
    rest = path.removeprefix(f"{name}.").split(".")
    return {**values, "stages": [_with(entry, rest, value) if _is_stage(entry, name) else entry for entry in entries]}


def _is_stage(entry: Any, name: str) -> bool:
    return isinstance(entry, dict) and entry.get("id") == name


def _with(values: Any, keys: list[str], value: Any) -> dict[str, Any]:
    """`values` with a nested key set. Mappings are copied: by YAML aliases several stages may share one."""
    first, *rest = keys
    mapping = values if isinstance(values, Mapping) else {}
    return {**mapping, first: _with(mapping.get(first), rest, value) if rest else value}


def _as_mistake(number: int, value: Any, problem: str) -> InitErrorDetails:
    return {
        "type": PydanticCustomError("stage_order", "{problem}", {"problem": problem}),
        "loc": (number,),
        "input": value,
    }


def _other_ways_to_quantize(stages: Sequence[Stage]) -> Iterator[Problem]:
    """Stages that would train a quantised network on in another way than it is quantised."""
    ways: dict[str | None, QuantizationConfig | None] = {None: None}
    before: str | None = None
    for number, stage in enumerate(stages):
        way = ways.get(stage.from_ or before)
        own = stage.quantization if isinstance(stage, TrainStage) else None
        if own is not None and way is not None and own.settled != way:
            yield number, stage.id, "quantization differs from that of what the stage starts from; leave it out"
        asked = stage.settings() if isinstance(stage, QuantizeStage) else own
        ways[stage.id] = way if asked is None else asked.settled
        before = stage.id


def _details(problem: ErrorDetails) -> InitErrorDetails:
    """A mistake in a stage, in the form in which one is reported; its place without the stage's kind."""
    place = problem["loc"][:1] + problem["loc"][2:]
    details: InitErrorDetails = {"type": problem["type"], "loc": place, "input": problem["input"]}
    return details | {"ctx": problem["ctx"]} if "ctx" in problem else details
