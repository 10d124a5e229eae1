"""The `distillation` block of a training stage."""

import pytest

from yolo_dist.compress.distillation import DistillationConfig
from yolo_dist.config import validate
from yolo_dist.errors import ConfigError


def test_a_teacher_is_enough() -> None:
    config = validate(DistillationConfig, {"teacher": "base"}, "stage")
    assert (config.strategy, config.temperature) == (5, 3.0)
    assert config.term_weights == {"scores": 1e-3, "boxes": 1e-3, "features": 1e-3}


def test_weights_replace_those_of_the_strategy_one_by_one() -> None:
    config = validate(DistillationConfig, {"teacher": "base", "strategy": 2, "weights": {"boxes": 0.5}}, "stage")
    assert config.term_weights == {"scores": 1e-4, "boxes": 0.5}


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        ({}, "teacher"),
        ({"teacher": "base", "strategy": 6}, "unknown strategy; there are 1, 2, 3, 4, 5"),
        ({"teacher": "base", "strategy": 1, "weights": {"boxes": 1}}, "strategy 1 has no term boxes; it has rows"),
        ({"teacher": "base", "strategy": 3, "layers": {1: 1}}, "strategy 3 compares no features; leave layers out"),
        ({"teacher": "base", "temperature": 0}, "temperature"),
    ],
)
def test_mistakes_are_named(values: dict[str, object], problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        validate(DistillationConfig, values, "stage")
