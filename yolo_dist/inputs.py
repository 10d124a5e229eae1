"""What a recipe refers to, opened and checked before anything starts."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

from yolo_dist.compress.graph import ChannelGraph
from yolo_dist.compress.pruning.candidates import candidate_sets
from yolo_dist.compress.pruning.layerwise import problem_of_shares
from yolo_dist.data.card import Card, find_card
from yolo_dist.data.joint_classes import JointClasses, join_classes, joint_card
from yolo_dist.data.mixture import Images, Mixture, MixturePlan, MixtureSource
from yolo_dist.data.shards import ShardSet, open_split
from yolo_dist.dataset import Mix
from yolo_dist.errors import ConfigError, InputError
from yolo_dist.model import ModelSource, check_model, read_structure
from yolo_dist.object_store import require_reachable
from yolo_dist.recipe import PruneStage, Recipe, Stage, TrainStage
from yolo_dist.stage_order import State, quantization_problems
from yolo_dist.storage import location, require_folder
from yolo_dist.train.quantized import freezing_steps

T = TypeVar("T")


@dataclass(frozen=True)
class Inputs:
    """The data of a recipe; for a mix the card is that of all datasets together."""

    card: Card
    train: Images
    validation: Images


def check(recipe: Recipe, source: str = "", others: Sequence[str] = ()) -> Inputs:
    """Open everything that a recipe refers to, start nothing.

    Args:
        recipe: what to check.
        source: the recipe's file, for messages; its name by default.
        others: problems found elsewhere, told with these.

    Raises:
        ConfigError: every card, split and model that is missing or does not fit, a storage that cannot be used, others.
    """
    recipe.object_store.apply()
    problems: list[str] = []
    names = (recipe.train_split, recipe.validation_split)
    opened = [_open(card, shards, names, problems) for card, shards in recipe.shards_of.items()]
    cards = [card for card, _ in opened if card is not None]
    classes = _attempt(lambda: _joined(cards), problems) if len(cards) == len(opened) else None
    card = None if classes is None else cards[0] if len(cards) == 1 else joint_card(cards, classes)
    _attempt(lambda: check_model(recipe.model, card, recipe.image_size), problems)
    for teacher in recipe.foreign_teachers():
        _attempt(lambda teacher=teacher: check_model(ModelSource(bundle=teacher), card, recipe.image_size), problems)  # type: ignore[misc]
    problems += _quantization_problems(recipe)
    problems += shares_problems(recipe)
    if all(split is not None for _, (split, _) in opened):
        problems += _freezing_problems(recipe, sum(len(split) for _, (split, _) in opened if split is not None))
    _attempt(lambda: _require_place(recipe), problems)
    problems += others
    if problems:
        raise ConfigError(source or recipe.name, list(dict.fromkeys(problems)))
    assert card is not None
    assert classes is not None
    train, validation = zip(*(splits for _, splits in opened), strict=True)
    if not isinstance(recipe.dataset, Mix):
        return Inputs(card, train[0], validation[0])
    shares = list(recipe.dataset.shares.values())
    return Inputs(card, *(_mixture(cards, classes, shares, splits) for splits in (train, validation)))


def _require_place(recipe: Recipe) -> None:
    """Refuse a storage that cannot be reached, or where a file is in the way of the run's folder.

    Raises:
        StorageError, ConfigError: it is so.
    """
    storage = location(recipe.storage)
    require_reachable(storage)
    for folder in (storage / recipe.name, storage, *storage.parents):
        require_folder(folder)


def _quantization_problems(recipe: Recipe) -> Iterator[str]:
    """Stages that do not go with what the recipe's model is."""
    quantized = recipe.model.is_quantized()
    state: State | None = None if quantized is None else "quantised" if quantized else "float"
    stages = [stage.model_dump(by_alias=True) for stage in recipe.stages]
    for number, name, problem in quantization_problems(stages, state):
        yield f"stages.{number}: {problem} ({name})"


def _freezing_problems(recipe: Recipe, images: int) -> Iterator[str]:
    """Stages that are over before ranges or statistics would freeze, as far as their steps are known by now."""
    for stage in recipe.stages:
        if not isinstance(stage, TrainStage) or stage.batch_size == "auto" or stage.sampling is not None:
            continue
        if stage.quantization is not None:
            try:
                freezing_steps(stage.quantization, stage.optimizer_steps(images) * stage.epochs)
            except ConfigError as error:
                yield from (f"{stage.id}: {error.source}: {problem}" for problem in error.problems)


def shares_problems(recipe: Recipe) -> Iterator[str]:
    """Stages that cut by a share for each set of channels, and have not one for each set of their network.

    That of a stage before which nothing was cut is known: it has the layers of the recipe's model.
    """
    for stage in recipe.stages:
        if isinstance(stage, PruneStage) and stage.percents is not None and not _cut_before(recipe, stage):
            try:
                graph = ChannelGraph.from_cfg(read_structure(recipe.model))
            except InputError:
                return  # told by `check_model`
            if problem := problem_of_shares(candidate_sets(graph, stage.scope), stage):
                yield f"{stage.id}.percents: {problem}"


def _cut_before(recipe: Recipe, stage: Stage) -> bool:
    stages = {other.id: other for other in recipe.stages}
    origin = recipe.start_of(stage)
    while origin is not None:
        if isinstance(stages[origin], PruneStage):
            return True
        origin = recipe.start_of(stages[origin])
    return False


def _open(
    name: str, shards: str, splits: Sequence[str], problems: list[str]
) -> tuple[Card | None, list[ShardSet | None]]:
    """A dataset's card and splits, and on the list what is wrong with them."""
    card = _attempt(lambda: find_card(name), problems)
    opened = [_attempt(lambda split=split: open_split(shards, split), problems) for split in splits]  # type: ignore[misc]
    for split in opened:
        if card is not None and split is not None and split.classes != card.classes:
            problems.append(
                f"shards: {split.folder} has the classes {', '.join(split.classes)}, the card {card.name} has "
                f"{', '.join(card.classes)}; convert it again with this card"
            )
        if split is not None and not len(split):
            problems.append(f"shards: {split.folder} holds no image")
    return card, opened


def _joined(cards: Sequence[Card]) -> JointClasses:
    names = [card.name for card in cards]
    if repeated := [name for name in dict.fromkeys(names) if names.count(name) > 1]:
        raise ConfigError("mix", [f"two cards are called {name}; give one of them another name" for name in repeated])
    return join_classes(cards)


def _mixture(
    cards: Sequence[Card], classes: JointClasses, shares: Sequence[float], splits: Sequence[ShardSet]
) -> Mixture:
    sources = (
        MixtureSource(card.name, str(split.folder), share, card.max_detections)
        for card, share, split in zip(cards, shares, splits, strict=True)
    )
    return Mixture(MixturePlan(tuple(sources), classes), splits)


def _attempt(action: Callable[[], T], problems: list[str]) -> T | None:
    """The result of `action`, or None and its problems on the list."""
    try:
        return action()
    except ConfigError as error:
        problems += [f"{error.source}: {problem}" for problem in error.problems]
    except InputError as error:
        problems.append(str(error))
    return None
