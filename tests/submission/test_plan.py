"""What would be submitted, and what is refused before anything is sent."""

import json
import shlex
import subprocess
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import tiny
import yaml

from yolo_dist.errors import ConfigError
from yolo_dist.submission.environment import pinned_requirements
from yolo_dist.submission.plan import Submission, plan_submission

SHARED: dict[str, Any] = {"storage": "s3://bucket/runs", "shards": "s3://bucket/tiny"}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with a recipe that a cluster can run."""
    (tmp_path / "yolo_dist").mkdir()
    (tmp_path / "yolo_dist" / "__main__.py").touch()
    write_recipe(tmp_path, **SHARED)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write_recipe(folder: Path, **changes: Any) -> None:
    (folder / "tiny.yaml").write_text(yaml.safe_dump(tiny.recipe_values(folder, **changes)))


def plan(*words: str, variables: list[str] | None = None, requirements: bool = False) -> Submission:
    return plan_submission(words, requirements, variables or [])


def test_a_recipe_alone_is_run_and_any_other_command_is_taken_as_it_is(folder: Path) -> None:
    assert plan("tiny.yaml", "base.epochs=2").entrypoint == "python -m yolo_dist run tiny.yaml base.epochs=2"
    assert plan("convert", "bccd", "s3://b/a b").entrypoint == "python -m yolo_dist convert bccd 's3://b/a b'"
    assert plan("run", "--json", "tiny.yaml").entrypoint == "python -m yolo_dist run --json tiny.yaml"
    with pytest.raises(ConfigError, match="name a recipe"):
        plan()


def test_requirements_are_what_is_installed_here_without_ray() -> None:
    pinned = pinned_requirements()
    assert f"torch=={version('torch').partition('+')[0]}" in pinned
    assert all("==" in one and "+" not in one for one in pinned)
    names = [one.partition("==")[0] for one in pinned]
    assert "ray" not in names
    assert "pytest" not in names


def test_the_environment_has_requirements_only_where_they_are_wanted(folder: Path) -> None:
    assert "pip" not in plan("tiny.yaml").runtime_environment("x.zip")
    environment = plan("tiny.yaml", requirements=True).runtime_environment("x.zip")
    assert environment["pip"] == {"packages": pinned_requirements()}


def test_variables_are_passed_on_by_name(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "planted-secret")
    monkeypatch.setenv("MY_OWN", "mine")
    planned = plan("tiny.yaml", variables=["AWS_SECRET_ACCESS_KEY", "MY_OWN"])
    assert "planted-secret" not in repr(planned)
    assert "planted-secret" not in planned.plain_line("http://head:8265")
    values = planned.runtime_environment("x.zip")["env_vars"]
    assert values["AWS_SECRET_ACCESS_KEY"] == "planted-secret"
    assert "AWS_SECRET_ACCESS_KEY" in plan_submission(["tiny.yaml"], requirements=False).variables
    monkeypatch.setenv("AWS_CA_BUNDLE", "/etc/a-file-of-this-machine")
    assert "AWS_CA_BUNDLE" not in plan_submission(["tiny.yaml"], requirements=False).variables
    assert "MY_OWN" not in plan_submission(["tiny.yaml"], requirements=False).variables
    with pytest.raises(ConfigError, match="--env: NOT_SET is not set here"):
        plan("tiny.yaml", variables=["NOT_SET"])


def test_a_shell_makes_the_same_environment_of_the_plain_line(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "it's $HOME")
    planned = plan("tiny.yaml", "validation_split=a b", variables=["AWS_SECRET_ACCESS_KEY"], requirements=True)
    line = planned.plain_line("http://head:8265", "my run")
    seen = subprocess.run(["bash", "-c", f"set -- {line}; printf '%s\\n' \"$@\""], capture_output=True, text=True)
    words = seen.stdout.splitlines()
    assert words[:7] == ["ray", "job", "submit", "--address", "http://head:8265", "--submission-id", "my run"]
    assert words[words.index("--") + 1 :] == shlex.split(planned.entrypoint)
    environment = json.loads(words[words.index("--runtime-env-json") + 1])
    assert environment.pop("excludes")[0] == ".git/"
    expected = planned.runtime_environment(".")
    del expected["working_dir"]
    assert environment == expected


@pytest.mark.parametrize(
    ("changes", "words", "problems"),
    [
        pytest.param({"storage": "runs"}, [], ["storage: runs is a folder of one machine"], id="storage"),
        pytest.param({"shards": "data/tiny"}, [], ["shards=s3://bucket/tiny, or an absolute path"], id="shards"),
        pytest.param({"storage": "runs"}, ["storage=s3://b/r"], [], id="overridden"),
        pytest.param({}, ["storage=runs", "shards=x"], ["storage: runs", "shards: x"], id="both at once"),
        pytest.param({"storage": "/mnt/runs", "shards": "/mnt/tiny"}, [], [], id="shared folders"),
        pytest.param({}, ["colour=red"], ["colour: unknown key"], id="a wrong key"),
    ],
)
def test_a_recipe_that_other_machines_could_not_follow_is_refused(
    changes: dict[str, Any], words: list[str], problems: list[str], folder: Path
) -> None:
    write_recipe(folder, **SHARED | changes)
    if not problems:
        plan("tiny.yaml", *words)
        return
    with pytest.raises(ConfigError) as error:
        plan("tiny.yaml", *words)
    lines = str(error.value).splitlines()
    assert len(lines) == len(problems)
    assert all(line.startswith("tiny.yaml: ") for line in lines)
    assert all(problem in line for problem, line in zip(problems, lines, strict=True))


def test_a_recipe_must_travel(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    write_recipe(elsewhere, **SHARED)
    (folder / ".rayignore").write_text("tiny.yaml")
    for recipe in ("tiny.yaml", str(elsewhere / "tiny.yaml")):
        with pytest.raises(ConfigError, match="does not travel with the working directory"):
            plan(recipe)
    with pytest.raises(ConfigError, match="is no file of this machine"):
        plan("nothing.yaml")


def test_installing_needs_this_package_in_the_working_directory(folder: Path) -> None:
    (folder / "yolo_dist" / "__main__.py").unlink()
    plan("tiny.yaml")
    with pytest.raises(ConfigError, match="submit from the checkout, or with --no-requirements"):
        plan("tiny.yaml", requirements=True)
