"""What is submitted, planned before anything is sent: command, files, environment, and the plain line of Ray's."""

import json
import os
import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from yolo_dist.errors import ConfigError
from yolo_dist.object_store import is_remote
from yolo_dist.recipe import Recipe, read_recipe
from yolo_dist.storage import location
from yolo_dist.submission.environment import SECONDS_TO_STOP, pinned_requirements, variables
from yolo_dist.submission.packing import EXCLUDED, Package, pack

PYTHON = "python"


@dataclass(frozen=True)
class Submission:
    """A job that can be sent.

    Attributes:
        command: words of the shell command that is run in the working directory, on the cluster.
        package: the working directory.
        requirements: packages with versions for pip; none where the cluster's image has them.
        variables: names of those that travel from this environment; their values are looked up when it is sent.
    """

    command: tuple[str, ...]
    package: Package
    requirements: tuple[str, ...]
    variables: tuple[str, ...]

    @property
    def entrypoint(self) -> str:
        """The shell command."""
        return shlex.join(self.command)

    def runtime_environment(self, working_directory: str) -> dict[str, Any]:
        """What Ray is told; holds the variables' values, so it is not for printing."""
        return self._environment({name: os.environ[name] for name in self.variables}) | {
            "working_dir": working_directory
        }

    def plain_line(self, address: str, id: str | None = None) -> str:
        """The same as a line of `ray job submit`; the shell that runs it fills in the variables' values.

        Quotes and backslashes in values must then be as JSON has them.
        """
        marks = {name: f"${{{name}}}" for name in self.variables}
        environment = shlex.quote(json.dumps(self._environment(marks) | {"excludes": list(EXCLUDED)}))
        for mark in marks.values():
            environment = environment.replace(mark, f"'\"{mark}\"'")
        named = ["--submission-id", id] if id else []
        words = shlex.join(["ray", "job", "submit", "--address", address, *named, "--working-dir", "."])
        return f"{words} --runtime-env-json {environment} -- {self.entrypoint}"

    def _environment(self, values: dict[str, str]) -> dict[str, Any]:
        pip = {"pip": {"packages": list(self.requirements)}} if self.requirements else {}
        return {"env_vars": {"RAY_JOB_STOP_WAIT_TIME_S": str(SECONDS_TO_STOP)} | values} | pip


def plan_submission(
    words: Sequence[str], requirements: bool = True, names: Iterable[str] | None = None, folder: Path | None = None
) -> Submission:
    """Plan to run `yolo-dist words…` on a cluster; a recipe's file alone stands for `run`.

    Args:
        words: a command of this package with its options, or a recipe with its overrides.
        requirements: whether the cluster shall install what this environment has; else its image has it.
        names: environment variables to pass on; see `environment.variables`.
        folder: the working directory, this process's by default.

    Raises:
        ConfigError: recipe, paths, variables or size are wrong.
    """
    folder = folder or Path.cwd()
    if not words:
        raise ConfigError("submit", ["name a recipe, or a command such as: run launch/bccd.yaml"])
    words = ("run", *words) if Path(words[0]).suffix in (".yaml", ".yml") else tuple(words)
    package = pack(folder)
    arguments = [word for word in words[1:] if not word.startswith("-")]
    if words[0] == "run" and arguments:
        recipe, *overrides = arguments
        _require_packed(recipe, package)
        require_shared(read_recipe(recipe, overrides), recipe)
    if requirements and Path("yolo_dist/__main__.py") not in package.files:
        raise ConfigError(
            str(folder),
            ["has no folder yolo_dist that could travel; submit from the checkout, or with --no-requirements"],
        )
    pinned = pinned_requirements() if requirements else []
    return Submission((PYTHON, "-m", "yolo_dist", *words), package, tuple(pinned), tuple(variables(names)))


def _require_packed(recipe: str, package: Package) -> None:
    if not (package.folder / recipe).is_file():
        raise ConfigError(recipe, ["is no file of this machine; give the recipe's path"])
    if Path(os.path.normpath(recipe)) not in package.files:
        raise ConfigError(recipe, ["does not travel with the working directory: it lies outside, or is ignored"])


def require_shared(recipe: Recipe, source: str) -> None:
    """Refuse a recipe whose data or results would lie in a job's own folder, which other nodes lack and which goes.

    Raises:
        ConfigError: names the keys.
    """
    places = {"storage": [recipe.storage], "shards": recipe.shards_of.values()}
    problems = [
        f"{key}: {place} is a folder of one machine; give a URL such as {key}=s3://bucket/{location(place).name}, "
        "or an absolute path that all nodes share"
        for key, values in places.items()
        for place in values
        if not is_remote(location(place)) and not Path(place).expanduser().is_absolute()
    ]
    if problems:
        raise ConfigError(source, problems)
