"""The data that a recipe names: one dataset, or several to mix."""

from collections.abc import Iterator, Mapping
from typing import Annotated, Any

from pydantic import Field, TypeAdapter, ValidatorFunctionWrapHandler, WrapValidator
from pydantic_core import InitErrorDetails, PydanticCustomError

from yolo_dist.config import Config

Weight = Annotated[float, Field(gt=0, allow_inf_nan=False)]

_TEXT, _TEXTS = TypeAdapter(str), TypeAdapter(dict[str, str])


class Mix(Config):
    """Several datasets to train on at once."""

    mix: Annotated[dict[str, Weight], Field(min_length=2)]
    """For each card the weight of its images in a batch, of any sum."""

    @property
    def shares(self) -> dict[str, float]:
        """For each card its share of a batch; together 1."""
        total = sum(self.mix.values())
        return {card: weight / total for card, weight in self.mix.items()}


def _card_or_mix(value: Any, _parse: ValidatorFunctionWrapHandler) -> str | Mix:
    """By its form, so that a mistake is one mistake and not one for each thing it could have been."""
    if isinstance(value, Mapping | Mix):
        return Mix.model_validate(value)
    return _TEXT.validate_python(value)


def _url_or_urls(value: Any, _parse: ValidatorFunctionWrapHandler) -> str | dict[str, str]:
    return _TEXTS.validate_python(value) if isinstance(value, Mapping) else _TEXT.validate_python(value)


Dataset = Annotated[str | Mix, WrapValidator(_card_or_mix)]
"""A card (a name from `datasets/` or the path of a YAML file), or several to mix."""

Shards = Annotated[str | dict[str, str], WrapValidator(_url_or_urls)]
"""Path or URL that a dataset was converted to; for a mix one for each of its cards."""


def misplaced_shards(dataset: str | Mix, shards: str | dict[str, str]) -> Iterator[InitErrorDetails]:
    """Where the shards of a recipe are not those of its dataset, or not one for each that is mixed."""
    cards = set(dataset.mix) if isinstance(dataset, Mix) else set()
    if isinstance(dataset, str) != isinstance(shards, str):
        wanted = "one path or URL" if isinstance(dataset, str) else f"one for each of {', '.join(sorted(cards))}"
        yield _mistake("must be {wanted}, as the dataset is", shards, wanted=wanted)
    elif isinstance(shards, dict):
        for card in sorted(cards - set(shards)):
            yield _mistake("there is none for {card} of the mix", shards, card=card)
        for card in sorted(set(shards) - cards):
            yield _mistake("{card} is not in the mix", shards, card=card)


def _mistake(text: str, value: Any, **words: str) -> InitErrorDetails:
    return {"type": PydanticCustomError("shards", text, words), "loc": (), "input": value}
