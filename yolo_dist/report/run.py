"""A run folder as typed data; what a run does not have yet is None or empty."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Annotated, Any, TypeVar

import numpy as np
import yaml
from numpy.typing import NDArray
from pydantic import BaseModel, BeforeValidator, Field, TypeAdapter, ValidationError, model_validator
from upath import UPath

from yolo_dist.bundle import CFG_FILE
from yolo_dist.compress.graph import Scope
from yolo_dist.compress.residual import ResidualBlock
from yolo_dist.darknet.cfg import Cfg, Convolutional, parse_cfg
from yolo_dist.errors import DataError
from yolo_dist.evaluate.metrics import Metrics
from yolo_dist.layout import METRICS_FILE, RECIPE_FILE, RESULTS_FILE

Model = TypeVar("Model", bound=BaseModel)


class StageResult(BaseModel):
    """One finished stage: `seconds` of wall time, `latency_ms` an image; None where it made no model."""

    id: str
    kind: str
    map: float | None = None
    map50: float | None = None
    parameters: int | None = None
    macs: int | None = None
    weight_bytes: int | None = None
    latency_ms: float | None = None
    seconds: float | None = None
    cached: bool = False


class Histogram(BaseModel):
    """Channels per bin of |γ|: n + 1 edges, n counts."""

    edges: list[float]
    counts: list[float] = Field(min_length=1)

    @model_validator(mode="after")
    def _check_lengths(self) -> "Histogram":
        if len(self.edges) != len(self.counts) + 1:
            raise ValueError(f"{len(self.counts)} counts need {len(self.counts) + 1} edges, not {len(self.edges)}")
        return self


class Gauge(BaseModel):
    """How sparse a network's γ are; shares lie in [0, 1], `below` is keyed by limits such as "1e-2"."""

    quantiles: dict[float, float] = {}
    below: dict[str, float] = {}
    prunable: float | None = None
    verdict: str | None = None
    histogram: Histogram | None = None


class Epoch(BaseModel):
    """One epoch of a training stage; `epoch` counts from 1, mAP only where it was evaluated."""

    stage: str
    epoch: int
    epochs: int | None = None
    loss: dict[str, float] = {}
    images_per_second: float | None = None
    map: float | None = None
    map50: float | None = None
    gauge: Gauge | None = None


class BeforeAfter(BaseModel):
    """A quantity before and after pruning."""

    before: float | None = None
    masked: float | None = None
    after: float | None = None


def _absent(value: Any) -> Any:
    return {} if value is None else value


MaybeBeforeAfter = Annotated[BeforeAfter, BeforeValidator(_absent)]


class Proof(BaseModel):
    """What running the masked and the compact network showed."""

    method: str
    percent: float | None = None
    images: int | None = None
    max_abs_difference: float | None = None
    precision: str | None = None
    tolerance: float | None = None
    parameters: MaybeBeforeAfter = BeforeAfter()
    macs: MaybeBeforeAfter = BeforeAfter()
    weight_bytes: MaybeBeforeAfter = BeforeAfter()
    latency_ms: MaybeBeforeAfter = BeforeAfter()
    map50: MaybeBeforeAfter = BeforeAfter()


class PlannedLayer(BaseModel):
    """A convolution that a pruning method chose from, and which of its channels it keeps."""

    channels: int
    keep: list[int]


class Plan(BaseModel):
    """What a pruning method decided: channels by convolution, and residual blocks that go."""

    layers: dict[int, PlannedLayer] = {}
    blocks: tuple[ResidualBlock, ...] = ()

    def masks(self) -> dict[int, NDArray[np.bool_]]:
        """Convolution → which of its channels stay, bool [C]."""
        return {index: np.isin(np.arange(layer.channels), layer.keep) for index, layer in self.layers.items()}

    def fits(self, cfg: Cfg) -> bool:
        """Whether it can have been made for a network: its convolutions are there and as wide."""
        widths = {i: layer.filters for i, layer in enumerate(cfg.layers) if isinstance(layer, Convolutional)}
        last = max((block.shortcut for block in self.blocks), default=0)
        return last < len(cfg.layers) and all(widths.get(i) == layer.channels for i, layer in self.layers.items())


class NoisyLayer(BaseModel):
    """A quantised layer's output against the float network's; no ratio where one of both is silent."""

    layer: int
    kind: str
    snr_db: float | None = None


class Noise(BaseModel):
    """What quantisation added to every layer's output."""

    images: int
    layers: list[NoisyLayer]


@dataclass(frozen=True)
class Pruning:
    """The network that a stage pruned, in which scope, and the plan."""

    cfg: Cfg
    scope: Scope
    plan: Plan


@dataclass(frozen=True)
class Stage:
    """A finished stage with whatever lies in its folder; `samples` are JPEG files by name."""

    result: StageResult
    evaluation: Metrics | None = None
    proof: Proof | None = None
    pruning: Pruning | None = None
    noise: Noise | None = None
    samples: dict[str, UPath] = field(default_factory=dict)

    @property
    def makes_model(self) -> bool:
        """Whether the stage has a model to compare with others."""
        return self.result.parameters is not None


@dataclass(frozen=True)
class Run:
    """Everything a run folder tells; `recipe_text` is its recipe as written, `recipe` the same parsed."""

    name: str
    recipe: dict[str, Any]
    recipe_text: str
    stages: list[Stage]
    epochs: dict[str, list[Epoch]]

    @property
    def models(self) -> list[Stage]:
        """The stages that made a model, in order."""
        return [stage for stage in self.stages if stage.makes_model]

    @property
    def planned(self) -> list[str]:
        """The ids of the recipe's stages, in order."""
        return list(_entries(self.recipe))


def read_run(folder: UPath) -> Run:
    """The run at a local or remote folder, finished or not.

    Raises:
        DataError: results.json is missing, or a file there is broken; names the file.
    """
    results = _results(folder / RESULTS_FILE)
    recipe_text = _text(folder / RECIPE_FILE) or ""
    recipe = _recipe(folder / RECIPE_FILE, recipe_text)
    return Run(
        name=str(recipe.get("name") or folder.name),
        recipe=recipe,
        recipe_text=recipe_text,
        stages=[_stage(folder, recipe, result) for result in results],
        epochs=_epochs(folder / METRICS_FILE),
    )


def _text(path: UPath) -> str | None:
    try:
        return path.read_bytes().decode()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: byte {error.start} is not UTF-8; restore the file or run the recipe again") from None


def _results(path: UPath) -> list[StageResult]:
    text = _text(path)
    if text is None:
        raise DataError(f"{path}: no such file; a run has it once its first stage is done (`yolo-dist run RECIPE`)")
    try:
        return TypeAdapter(list[StageResult]).validate_json(text)
    except ValidationError as error:
        raise _broken(str(path), error) from None


def _recipe(path: UPath, text: str) -> dict[str, Any]:
    try:
        recipe = yaml.safe_load(text) or {}
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f" line {mark.line + 1}" if mark else ""
        raise DataError(f"{path}{place}: not YAML; run the recipe again to have it written anew") from None
    if not isinstance(recipe, dict):
        raise DataError(f"{path}: holds a {type(recipe).__name__}, not a recipe's keys; run the recipe again")
    return recipe


def _entries(recipe: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The recipe's stages by their ids, in order."""
    stages = recipe.get("stages")
    entries = stages if isinstance(stages, list) else []
    return {str(entry["id"]): entry for entry in entries if isinstance(entry, dict) and "id" in entry}


def _stage(run: UPath, recipe: dict[str, Any], result: StageResult) -> Stage:
    folder = run / "stages" / result.id
    return Stage(
        result=result,
        evaluation=_optional(folder / "evaluation.json", Metrics),
        proof=_optional(folder / "proof.json", Proof),
        pruning=_pruning(run, folder, _entries(recipe), result.id),
        noise=_optional(folder / "noise.json", Noise),
        samples=_samples(folder / "samples"),
    )


def _pruning(run: UPath, folder: UPath, entries: dict[str, dict[str, Any]], stage: str) -> Pruning | None:
    """What a prune stage did; None without its plan, its place in the recipe or the network it started from."""
    plan = _optional(folder / "plan.json", Plan)
    if plan is None or stage not in entries:
        return None
    ids = [None, *entries]
    origin = entries[stage].get("from") or ids[ids.index(stage) - 1]
    start = (run / "stages" / str(origin) if origin else run / "initial") / CFG_FILE
    text = _text(start)
    if text is None:
        return None
    cfg = parse_cfg(text, str(start))
    if not plan.fits(cfg):
        raise DataError(f"{folder / 'plan.json'}: is not about the network in {start}; run the recipe again")
    return Pruning(cfg, "full" if entries[stage].get("scope") == "full" else "classic", plan)


def _optional(path: UPath, model: type[Model]) -> Model | None:
    text = _text(path)
    if text is None:
        return None
    try:
        return model.model_validate_json(text)
    except ValidationError as error:
        raise _broken(str(path), error) from None


def _samples(folder: UPath) -> dict[str, UPath]:
    if not folder.is_dir():
        return {}
    return {path.name: path for path in sorted(folder.iterdir(), key=str) if path.suffix.lower() in (".jpg", ".jpeg")}


def _epochs(path: UPath) -> dict[str, list[Epoch]]:
    """Epochs per stage in order; of an epoch that was run twice, the later line counts."""
    latest: dict[str, dict[int, Epoch]] = {}
    for epoch in _lines(path):
        latest.setdefault(epoch.stage, {})[epoch.epoch] = epoch
    return {stage: [by_number[number] for number in sorted(by_number)] for stage, by_number in latest.items()}


def _lines(path: UPath) -> Iterator[Epoch]:
    text = _text(path) or ""
    lines = text.split("\n")
    for number, line in enumerate(lines, 1):
        being_written = number == len(lines) and not _is_json(line)
        if not line.strip() or being_written:
            continue
        try:
            yield Epoch.model_validate_json(line)
        except ValidationError as error:
            raise _broken(f"{path} line {number}", error) from None


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except json.JSONDecodeError:
        return False
    return True


def _broken(place: str, error: ValidationError) -> DataError:
    first = error.errors(include_url=False)[0]
    key = ".".join(str(part) for part in first["loc"])
    message = first["msg"].removeprefix("Value error, ")
    detail = f"{key}: {message}" if key else message
    return DataError(f"{place}: {detail}; delete the file and run the recipe again")
