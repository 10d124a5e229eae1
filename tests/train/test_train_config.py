"""What a training stage is told, and how it is understood."""

from typing import Any

import pytest
from tiny_training import PLAIN, training

from yolo_dist.config import validate
from yolo_dist.errors import ConfigError
from yolo_dist.train.config import TrainConfig


@pytest.mark.parametrize(
    ("epochs", "every", "expected"),
    [
        (30, None, [2, 5, 8, 11, 14, 17, 20, 23, 26]),
        (3, None, [0, 1]),
        (6, 2, [1, 3]),
        (5, 2, [1, 3]),
        (4, 0, []),
        (1, None, []),
    ],
)
def test_epochs_that_are_evaluated_never_count_the_last_which_always_is(
    epochs: int, every: int | None, expected: list[int]
) -> None:
    config = training(epochs=epochs, evaluate_every=every)
    assert [epoch for epoch in range(epochs) if config.evaluates_after(epoch)] == expected


def test_options_that_nobody_uses_are_no_part_of_what_a_stage_is_known_by() -> None:
    """Results that were made before an option was there stay what they are."""
    known = validate(TrainConfig, {}, "stage").model_dump(mode="json", exclude_none=True)
    assert set(known) == {
        *("epochs", "batch_size", "nominal_batch", "seed", "from_scratch", "autocast", "statistics_images"),
        *("checkpoint_every", "optimizer", "loss", "augment"),
    }
    assert set(known["loss"]) == {"box_gain", "objectness_gain", "class_gain", "iou"}


@pytest.mark.parametrize(
    ("batch", "nominal", "expected"), [(16, 64, 4), (64, 64, 1), (128, 64, 1), (24, 64, 3), (3, 64, 21)]
)
def test_batches_are_accumulated_to_about_the_nominal_one(batch: int, nominal: int, expected: int) -> None:
    assert training(batch_size=batch, nominal_batch=nominal).accumulate == expected


@pytest.mark.parametrize(
    ("values", "key"),
    [
        ({"epochs": 0}, "epochs"),
        ({"batch_size": 0}, "batch_size"),
        ({"multi_scale": (1.5, 0.5)}, "multi_scale"),
        ({"sparsity": {"factor": -1}}, "sparsity.factor"),
        ({"augment": PLAIN | {"mosaik": 1}}, "augment.mosaik: unknown key"),
        ({"optimizer": {"momentum": 1.5}}, "optimizer.momentum"),
        ({"loss": {"iou": "diou"}}, "loss.iou"),
    ],
)
def test_wrong_settings_are_refused_by_their_path(values: dict[str, Any], key: str) -> None:
    with pytest.raises(ConfigError, match=key):
        validate(TrainConfig, values, "stage")
