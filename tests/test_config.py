"""Configuration: strict keys, and every mistake at once with its place."""

from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import Field, TypeAdapter, ValidationError

from yolo_dist.config import STRIDE_LIMIT, Config, ImageSize, read_yaml, validate
from yolo_dist.errors import ConfigError

IMAGE_SIZE = TypeAdapter[tuple[int, int]](ImageSize)


class Optimizer(Config):
    rate: Annotated[float, Field(gt=0)] = 0.01


class Square(Config):
    kind: Literal["square"]
    side: int


class Circle(Config):
    kind: Literal["circle"]
    radius: int


class Example(Config):
    name: str
    epochs: int = 3
    optimizer: Optimizer = Field(default_factory=Optimizer)
    drawn: tuple[Annotated[Square | Circle, Field(discriminator="kind")], ...] = ()


def problems_of(values: dict[str, Any]) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        validate(Example, values, "example.yaml")
    assert caught.value.source == "example.yaml"
    assert str(caught.value) == "\n".join(f"example.yaml: {problem}" for problem in caught.value.problems)
    return caught.value.problems


def test_right_values_become_the_configuration() -> None:
    assert validate(Example, {"name": "a", "optimizer": {"rate": 1}}, "x") == Example(
        name="a", optimizer=Optimizer(rate=1.0)
    )


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        pytest.param({}, "name: required key is missing", id="missing"),
        pytest.param({"name": "a", "epoch": 3}, "epoch: unknown key", id="unknown"),
        pytest.param({"name": "a", "optimizer": {"lr": 1}}, "optimizer.lr: unknown key", id="unknown, nested"),
        pytest.param(
            {"name": "a", "optimizer": {"rate": 0}},
            "optimizer.rate: Input should be greater than 0 (got 0)",
            id="range",
        ),
        pytest.param({"name": "a", "drawn": [{"side": 1}]}, "drawn.0: 'kind' is missing", id="no kind"),
        pytest.param(
            {"name": "a", "drawn": [{"kind": "star"}]},
            "drawn.0: 'kind' is 'star', not one of 'square', 'circle'",
            id="unknown kind",
        ),
    ],
)
def test_a_mistake_is_named_with_its_dotted_path(values: dict[str, Any], problem: str) -> None:
    assert problems_of(values) == [problem]


def test_all_mistakes_are_reported_together() -> None:
    problems = problems_of({"epochs": "many", "optimizer": {"rate": -1, "lr": 1}, "colour": "red"})
    places = [problem.partition(":")[0] for problem in problems]
    assert sorted(places) == ["colour", "epochs", "name", "optimizer.lr", "optimizer.rate"]


def test_a_long_wrong_value_is_cut_and_stays_on_one_line() -> None:
    (problem,) = problems_of({"name": "a", "epochs": "first\nsecond " * 100})
    assert len(problem) < 200
    assert "\n" not in problem


def test_a_configuration_cannot_be_changed() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        Example(name="a").epochs = 4  # type: ignore[misc]


@settings(deadline=None)
@given(columns=st.integers(1, 100), rows=st.integers(1, 100))
def test_multiples_of_the_largest_stride_are_image_sizes(columns: int, rows: int) -> None:
    width, height = columns * STRIDE_LIMIT, rows * STRIDE_LIMIT
    assert IMAGE_SIZE.validate_python([width, height]) == (width, height)
    assert IMAGE_SIZE.validate_python([str(width), str(height)]) == (width, height)
    assert IMAGE_SIZE.validate_python(width) == (width, width)


@pytest.mark.parametrize("wrong", [0, -32, 100, [416], [416, 100], [416, 416, 3], "large", None, 416.5])
def test_other_image_sizes_are_refused(wrong: Any) -> None:
    with pytest.raises(ValidationError):
        IMAGE_SIZE.validate_python(wrong)


def test_a_mapping_may_override_what_it_merges_in(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text(
        "base: &base {epochs: 1, seed: 2}\nlong: &long {<<: *base, epochs: 3}\nlonger: {<<: *long, seed: 4}\n"
    )
    assert read_yaml(path)["longer"] == {"epochs": 3, "seed": 4}


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        pytest.param("epochs: 1\nname: {{ name }}\n", r".* unhashable key .* line 2, column 8", id="a template"),
        pytest.param(
            "name: 2026-30-11\n",
            r"is no timestamp: month .* line 1, column 7",
            id="a date of no calendar",
        ),
        pytest.param(
            "seed: !!int abc\n",
            r"is no int: invalid .* line 1, column 7",
            id="a tag that does not suit",
        ),
        pytest.param("when: !!timestamp noon\n", r"is no timestamp: .* line 1, column 7", id="a tag of another form"),
    ],
)
def test_a_value_that_is_none_in_yaml_is_refused_with_its_line(text: str, problem: str, tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=rf"^{path}: {problem}") as error:
        read_yaml(path)
    assert len(str(error.value).splitlines()) == 1


def test_a_key_that_occurs_twice_is_refused_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text("base:\n  epochs: 1\n  epochs: 2\n")
    with pytest.raises(ConfigError, match=rf"^{path}: key epochs occurs twice .* line 3, column 3"):
        read_yaml(path)
