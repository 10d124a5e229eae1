"""What trackers are told of a stage, and what they are not."""

from pathlib import Path
from typing import Any

import pytest
from tracked import tracked

from yolo_dist.train.tracking.stage import without_credentials


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        pytest.param("s3://key:se/cr?e@t@bucket/x", "s3://bucket/x", id="a key with anything in it"),
        pytest.param("https://token@host/x", "https://host/x", id="a user who is the secret"),
        pytest.param("https://host/x?signature=secret#y", "https://host/x", id="a signed link"),
        pytest.param("simplecache::s3://key:secret@bucket/x", "simplecache::s3://bucket/x", id="a chain"),
        pytest.param({"mix": {"s3://k:s@b/x": 1}}, {"mix": {"s3://b/x": 1}}, id="keys of mappings"),
        pytest.param([("s3://k:s@b/x",)], [["s3://b/x"]], id="lists in lists"),
        pytest.param("s3://bucket/folder@2/x", "s3://bucket/folder@2/x", id="an @ in a folder's name"),
        pytest.param("data/why?/me@home", "data/why?/me@home", id="a path"),
        pytest.param({"percent": 0.5, "force": True, "teacher": None}, None, id="what is no text"),
    ],
)
def test_urls_lose_their_credentials(value: Any, expected: Any) -> None:
    assert without_credentials(value) == (value if expected is None else expected)


def test_a_configuration_is_the_settings_with_place_and_recipe_beside_them(tmp_path: Path) -> None:
    settings = {"epochs": 20, "distillation": {"teacher": "s3://key:secret@bucket/teacher"}}
    stage = tracked(tmp_path, "tuned", settings=settings, recipe={"shards": "https://me:secret@host/bccd"})
    assert stage.configuration == {
        "epochs": 20,
        "distillation": {"teacher": "s3://bucket/teacher"},
        "stage": {"id": "tuned", "kind": "train"},
        "recipe": {"shards": "https://host/bccd"},
    }
