"""What a search may put in the place of one key of a recipe."""

import math
from collections.abc import Iterator, Sequence
from typing import Annotated, Any, Self

from annotated_types import Ge, MinLen
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from pydantic import field_validator, model_validator
from pydantic_core import to_jsonable_python

from yolo_dist.config import Config

DIGITS = 4
"""Significant ones of a drawn number: what a person can type, and more than any search can tell apart."""

MOST_SAMPLES = 100

INSIDE = 0.37
"""Where in an interval a number is tried that no key for whole numbers takes."""

LARGEST_RANGE = 2**53
"""Up to which every whole number is a float too."""


class Distribution(Config):
    """Values of one key: exactly one of the first five, or as many such values as `length` says."""

    uniform: tuple[float, float] | None = None
    """[low, high], every value as likely as any other."""
    loguniform: tuple[float, float] | None = None
    """[low, high] above 0, every order of magnitude as likely as any other."""
    integer: tuple[int, int] | None = None
    """[low, high], both included."""
    choice: Annotated[tuple[Any, ...], MinLen(1)] | None = None
    """One of these values, whatever they are; `null` takes a block out of the recipe."""
    grid: Annotated[tuple[Any, ...], MinLen(1)] | None = None
    """The same, in the word of a grid search."""
    length: Annotated[int, Ge(1)] | None = None
    """A list of so many values, each drawn on its own."""

    @field_validator("choice", "grid", mode="before")
    @classmethod
    def _as_files_keep_them(cls, values: Any) -> Any:
        """Keys of blocks are texts in JSON, and trials' values are read from there again: 13 would not equal "13"."""
        return to_jsonable_python(values)

    @model_validator(mode="after")
    def _one_kind_with_bounds_in_order(self) -> Self:
        kinds = ("uniform", "loguniform", "integer", "choice", "grid")
        given = [kind for kind in kinds if getattr(self, kind) is not None]
        if len(given) != 1:
            raise ValueError(f"give one of {', '.join(kinds)}, not {' and '.join(given) or 'none'}")
        chosen = self.choice or self.grid or ()
        for place, value in enumerate(chosen):
            if value in chosen[:place]:
                raise ValueError(f"{given[0]} names {value} twice")
        if (bounds := self.uniform or self.loguniform or self.integer) is not None:
            low, high = bounds
            if not (math.isfinite(low) and math.isfinite(high) and low < high):
                raise ValueError(f"{given[0]} needs a finite low end below its high end, not [{low:g}, {high:g}]")
            if self.loguniform is not None and low <= 0:
                raise ValueError(f"loguniform needs a low end above 0, not {low:g}")
            if self.integer is not None and max(abs(low), abs(high)) > LARGEST_RANGE:
                raise ValueError(f"integer needs ends between -2^53 and 2^53, not [{low:g}, {high:g}]")
        return self

    @property
    def options(self) -> Sequence[Any] | None:
        """All values of one place, in order; None where there are infinitely many."""
        if self.integer is not None:
            return range(self.integer[0], self.integer[1] + 1)
        return self.choice if self.choice is not None else self.grid

    @property
    def samples(self) -> Sequence[Any]:
        """Values that show whether a recipe takes all of them: every choice, both bounds of an interval and one inside,
        and all integers or, of many, the first and the last."""
        of_one: Sequence[Any] = self.options or ()
        if (bounds := self.uniform or self.loguniform) is not None:
            of_one = (*bounds, self._rounded(bounds[0] + INSIDE * (bounds[1] - bounds[0])))
        if self.integer is not None and len(of_one) > MOST_SAMPLES:
            of_one = (*of_one[: MOST_SAMPLES // 2], *of_one[-MOST_SAMPLES // 2 :])
        return of_one if self.length is None else [[value] * self.length for value in of_one]

    def places(self, path: str) -> Iterator[str]:
        """Names of what is drawn for the key at `path`: itself, or one for each place of a list."""
        return iter((path,) if self.length is None else (f"{path}[{place}]" for place in range(self.length)))

    def for_optuna(self) -> BaseDistribution:
        """The distribution of one place; of a choice its number, for its values may be lists and mappings."""
        if (bounds := self.uniform or self.loguniform) is not None:
            return FloatDistribution(*bounds, log=self.loguniform is not None)
        if self.integer is not None:
            return IntDistribution(*self.integer)
        return CategoricalDistribution(tuple(range(len(self.options or ()))))

    def value_of(self, drawn: Sequence[Any]) -> Any:
        """The recipe's value, of what was drawn for each place."""
        values = [self._rounded(one) for one in drawn]
        return values[0] if self.length is None else values

    def drawn_for(self, value: Any) -> list[Any]:
        """What would have to be drawn for a value; the inverse of `value_of`."""
        chosen = self.choice if self.choice is not None else self.grid
        values = [value] if self.length is None else value
        return [one if chosen is None else chosen.index(one) for one in values]

    def _rounded(self, drawn: Any) -> Any:
        if (bounds := self.uniform or self.loguniform) is not None:
            low, high = bounds
            alike = int(max(0.0, math.log10(max(abs(low), abs(high)) / (high - low))))  # leading digits of all values
            return min(max(float(f"{drawn:.{DIGITS + alike}g}"), low), high)
        return drawn if self.integer is not None else (self.options or ())[drawn]
