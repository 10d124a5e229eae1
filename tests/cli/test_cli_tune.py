"""The command `tune`: it checks, searches, shows the front, and takes a trial out."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from command_line import done, refused
from free_ports import free_ports
from searches import prepare, record, space

from yolo_dist.storage import location
from yolo_dist.tune import search as search_module


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = prepare(tmp_path_factory.mktemp("tune"))
    (folder / "space.yaml").write_text(space(folder).to_yaml())
    return folder


def test_a_check_starts_nothing(folder: Path) -> None:
    outcome = done("tune", folder / "space.yaml", "trials=3", "--check")
    assert outcome.out.endswith("space.yaml: 3 trials of 3 stages: nothing wrong\n")
    assert not (folder / "searches").exists()


def test_a_check_as_json_prints_numbers_and_nothing_else(folder: Path) -> None:
    assert done("tune", folder / "space.yaml", "trials=3", "--check", "--json").json() == {"trials": 3, "stages": 3}


def test_a_recipe_is_told_to_be_one_in_one_line(folder: Path) -> None:
    recipe = folder / "recipe.yaml"
    for options in ([], ["--check"], ["--export", "knee"]):
        assert refused("tune", recipe, *options) == [
            f"{recipe}: is a recipe, not a search space; `yolo-dist run {recipe}` runs it"
        ]


def test_a_space_that_is_not_there_is_looked_for_from_the_current_folder(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    (error,) = refused("tune", "nothing.yaml")
    assert error.startswith(
        f"nothing.yaml: cannot be read: No such file or directory; a relative path begins at {folder}; "
    )
    assert "tune_spaces: bccd_factor_percent_method.yaml, " in error


def test_a_place_without_a_trial_to_export_is_refused(folder: Path) -> None:
    assert refused("tune", folder / "space.yaml", "--out", folder / "exported") == [
        "options: --out goes with --export, which takes a trial out of the search"
    ]
    assert not (folder / "searches").exists()


def test_a_trial_is_looked_for_in_the_store_that_the_recipe_names(folder: Path) -> None:
    """In a process of its own: connections to stores are kept for as long as one lives."""
    (port,) = free_ports(1)
    store = {"ACCESS_KEY_ID": "a", "SECRET_ACCESS_KEY": "b", "MAX_ATTEMPTS": "1"}
    environment = {**os.environ, **{f"AWS_{name}": value for name, value in store.items()}}
    overrides = ["storage=s3://bucket/searches", f"object_store.endpoint=http://127.0.0.1:{port}"]
    command = [sys.executable, "-m", "yolo_dist", "tune", str(folder / "space.yaml"), *overrides, "--export", "knee"]
    outcome = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert outcome.returncode == 2
    (error,) = outcome.stderr.splitlines()
    assert error.startswith(
        "error: s3://bucket/searches/tiny-search: cannot be used: Could not connect to the endpoint"
    )
    assert f"http://127.0.0.1:{port}" in error


def test_everything_wrong_is_an_error_line_of_its_own(folder: Path) -> None:
    lines = refused("tune", folder / "space.yaml", "space.nope.a={grid: [1]}", "space.pruned.percent={grid: [2]}")
    assert [line.partition("space.yaml: ")[2].partition(" (got")[0] for line in lines] == [
        "space.pruned.percent: stages.1.percent: Input should be less than 1",
        "space.nope.a: nope: unknown key",
    ]


@pytest.fixture
def searched(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A search whose three trials are over: what is left to do is to tell."""
    records = [record("aaaa", 0.8, 500), record("bbbb", 0.6, 200), record("cccc", 0.5, 600)]
    for one in records:
        one.save(location(folder / "searches" / "tiny-search"))
    monkeypatch.setattr(search_module, "_fit", lambda *_: None)
    return folder


def test_the_front_is_shown_as_a_table(searched: Path) -> None:
    outcome = done("tune", searched / "space.yaml", "trials=3")
    rows = [line for line in outcome.out.splitlines() if "aaaa" in line or "bbbb" in line or "cccc" in line]
    assert len(rows) == 2
    assert "0.800" in rows[0]
    assert outcome.out.endswith("tune.html\n")


def test_a_check_refuses_what_the_search_would_refuse(searched: Path) -> None:
    done("tune", searched / "space.yaml", "trials=3", "name=begun")
    kept = searched / "searches" / "begun"
    for options, problem in (
        (["--check"], f"{kept} holds a search; go on with --resume, or give another name=…"),
        (
            ["tuned.epochs=3", "--check", "--resume"],
            f"overrides: is not what the search in {kept} began with",
        ),
    ):
        assert refused("tune", searched / "space.yaml", "name=begun", *options) == [f"{searched}/space.yaml: {problem}"]
    assert done("tune", searched / "space.yaml", "trials=5", "name=begun", "--check", "--resume").out


def test_json_is_all_there_is_on_standard_output(searched: Path) -> None:
    outcome = done("tune", searched / "space.yaml", "trials=3", "--resume", "--json")
    root = searched / "searches" / "tiny-search"
    assert outcome.json() == json.loads((root / "tune.json").read_text())
    assert outcome.json()["front"] == ["aaaa", "bbbb"]
