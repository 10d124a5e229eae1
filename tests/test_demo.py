"""The demo: makes its own data, once, and runs the recipe that comes with the package on it."""

from pathlib import Path

import pytest
import tiny

from yolo_dist import demo
from yolo_dist.data.shards import open_split
from yolo_dist.demo import run_demo
from yolo_dist.recipe import Recipe
from yolo_dist.stage_cache import StageResult


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> list[Recipe]:
    """The recipes that were run, instead of their work."""
    seen: list[Recipe] = []

    def note(recipe: Recipe) -> list[StageResult]:
        seen.append(recipe)
        return []

    monkeypatch.setattr(demo, "run", note)
    return seen


def test_the_demo_runs_the_whole_road_on_data_it_has_made(tmp_path: Path, runs: list[Recipe]) -> None:
    card = tiny.write_card(tmp_path)
    recipe, _ = run_demo(str(tmp_path / "runs"), str(tmp_path / "data"), [f"dataset={card}", "base.epochs=2"])
    assert runs == [recipe]
    assert (recipe.name, recipe.storage) == ("shapes", str(tmp_path / "runs"))
    assert [stage.kind for stage in recipe.stages] == ["train", "train", "prune", "train", "train", "export"]
    shards = str(tmp_path / "data" / "shapes")
    assert [len(open_split(shards, split)) for split in ("train", "val")] == [12, 6]
    assert recipe.shards == shards


def test_data_that_is_there_is_not_made_again(tmp_path: Path, runs: list[Recipe]) -> None:
    arguments = (str(tmp_path / "runs"), str(tmp_path / "data"), [f"dataset={tiny.write_card(tmp_path)}"])
    run_demo(*arguments)
    manifest = tmp_path / "data" / "shapes" / "train" / "manifest.json"
    made = manifest.stat().st_mtime_ns
    run_demo(*arguments)
    assert manifest.stat().st_mtime_ns == made
    assert len(runs) == 2


def test_paths_are_taken_as_they_are(tmp_path: Path, runs: list[Recipe]) -> None:
    data, storage = tmp_path / "a #1 é😀", tmp_path / 'b: "c"'
    run_demo(str(storage), str(data), [f"dataset={tiny.write_card(tmp_path)}"])
    assert (runs[0].shards, runs[0].storage) == (str(data / "shapes"), str(storage))


def test_an_override_of_the_shards_says_where_the_data_goes(tmp_path: Path, runs: list[Recipe]) -> None:
    card, elsewhere = tiny.write_card(tmp_path), tmp_path / "elsewhere"
    run_demo(str(tmp_path / "runs"), str(tmp_path / "data"), [f"dataset={card}", f"shards={elsewhere}"])
    assert runs[0].shards == str(elsewhere)
    assert len(open_split(elsewhere, "train")) == 12
    assert not (tmp_path / "data").exists()
