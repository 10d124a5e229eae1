"""The recipe: one YAML file that says which stages turn which data into which detector."""

from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import Field, model_validator

from yolo_dist.compress.pruning import PruneConfig
from yolo_dist.config import Config, ImageSize, validate
from yolo_dist.errors import ConfigError
from yolo_dist.evaluate.evaluator import EvaluationConfig
from yolo_dist.model import ModelSource
from yolo_dist.train.cluster import ClusterConfig
from yolo_dist.train.config import TrainConfig
from yolo_dist.train.tracking import TrackingConfig

StageId = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]


class TrainStage(TrainConfig):
    """A training stage in a recipe."""

    kind: Literal["train"]
    id: StageId
    from_: StageId | None = Field(default=None, alias="from")
    """Stage to start from; the one before by default."""

    def settings(self) -> TrainConfig:
        """The stage without its place in the recipe."""
        return TrainConfig(**{name: getattr(self, name) for name in TrainConfig.model_fields})


class PruneStage(PruneConfig):
    """A pruning stage in a recipe."""

    kind: Literal["prune"]
    id: StageId
    from_: StageId | None = Field(default=None, alias="from")
    """Stage to start from; the one before by default."""

    def settings(self) -> PruneConfig:
        """The stage without its place in the recipe."""
        return PruneConfig(**{name: getattr(self, name) for name in PruneConfig.model_fields})


Stage = Annotated[TrainStage | PruneStage, Field(discriminator="kind")]


class Recipe(Config):
    """Everything a run needs to know."""

    name: StageId
    """Name of the run and of its folder in `storage`."""
    dataset: str
    """Card: a name from `datasets/` or the path of a YAML file."""
    shards: str
    """Path or URL that the dataset was converted to."""
    model: ModelSource
    image_size: ImageSize = (416, 416)
    """Input of the network in pixels: one number, or [width, height]."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Seed of the network's first weights and of computed anchors; stages have their own."""
    train_split: str = "train"
    validation_split: str = "val"
    stages: Annotated[tuple[Stage, ...], Field(min_length=1)]
    evaluation: EvaluationConfig = Field(default_factory=EvaluationConfig)
    cluster: ClusterConfig = Field(default_factory=ClusterConfig)
    storage: str = "runs"
    """Path or URL under which runs are kept."""
    tracking: TrackingConfig = Field(default_factory=TrackingConfig)

    @model_validator(mode="after")
    def _stages_in_order(self) -> Self:
        seen: list[str] = []
        problems = []
        for stage in self.stages:
            if stage.id in seen:
                problems.append(f"stage {stage.id} stands there twice")
            if stage.from_ is not None and stage.from_ not in seen:
                problems.append(f"stage {stage.id} starts from {stage.from_}, which is no stage before it")
            seen.append(stage.id)
        if problems:
            raise ValueError("; ".join(problems))
        return self

    def start_of(self, stage: TrainStage | PruneStage) -> str | None:
        """Id of the stage that `stage` starts from; None for the recipe's model."""
        if stage.from_ is not None:
            return stage.from_
        ids = [other.id for other in self.stages]
        position = ids.index(stage.id)
        return ids[position - 1] if position else None

    def to_yaml(self) -> str:
        """The recipe as resolved, ready to be run again."""
        values = self.model_dump(mode="json", by_alias=True, exclude_none=True)
        return yaml.safe_dump(values, sort_keys=False, allow_unicode=True)


def read_recipe(path: str, overrides: list[str] | None = None) -> Recipe:
    """A recipe file with `key=value` overrides; `stage.key=value` reaches into the stage of that id.

    Raises:
        ConfigError: everything that is wrong with it.
    """
    return make_recipe(read_yaml(path), path, overrides)


def make_recipe(values: dict[str, Any], source: str, overrides: list[str] | None = None) -> Recipe:
    """A recipe from its values; see `read_recipe`."""
    problems = [problem for item in overrides or [] if (problem := _override(values, item))]
    if problems:
        raise ConfigError(source, problems)
    return validate(Recipe, values, source)


def read_yaml(path: str) -> dict[str, Any]:
    """The mapping in a YAML file.

    Raises:
        ConfigError: no such file, no YAML, or no mapping.
    """
    try:
        values = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(path, [f"cannot be read: {error.strerror}"]) from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(path, [f"is not YAML: {' '.join(str(error).split())}"]) from None
    if not isinstance(values, dict):
        raise ConfigError(path, ["must be a mapping of keys to values, such as name: hand-tiny"])
    return values


def _override(values: dict[str, Any], item: str) -> str | None:
    """Apply one `key=value`; what is wrong with it, if anything."""
    path, equals, text = item.partition("=")
    if not equals or not path:
        return f"{item}: an override reads key=value or stage.key=value"
    first, *rest = path.split(".")
    stages = values.get("stages")
    target = next((s for s in stages or [] if isinstance(s, dict) and s.get("id") == first), None) if rest else None
    *parents, last = rest if target is not None else [first, *rest]
    target = values if target is None else target
    for parent in parents:
        if not isinstance(target.setdefault(parent, {}), dict):
            target[parent] = {}
        target = target[parent]
    try:
        target[last] = yaml.safe_load(text)
    except yaml.YAMLError:
        return f"{item}: {text!r} is not a YAML value"
    return None
