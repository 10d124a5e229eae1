"""Errors come from workers as they were raised there."""

import pickle

import pytest

from yolo_dist.errors import ConfigError, DataError, LayerWouldVanish, NotSparseEnough, ShardCorrupt, YoloDistError


@pytest.mark.parametrize(
    "error",
    [
        ConfigError("recipe.yaml", ["name: missing", "epochs: 0"]),
        ShardCorrupt("s3://bucket/shard", "abc", "def"),
        LayerWouldVanish(3, 16, 0.9, 0.8),
        NotSparseEnough("train it sparser"),
        DataError("cut"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_an_error_travels_between_processes(error: YoloDistError) -> None:
    arrived = pickle.loads(pickle.dumps(error))
    assert type(arrived) is type(error)
    assert str(arrived) == str(error)
    assert vars(arrived) == vars(error)
