"""The runs that a storage keeps, wherever it is: listed, looked at, fetched, and rid of what is no longer needed."""

import json
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from upath import UPath

from yolo_dist.errors import ConfigError, DataError, InputError
from yolo_dist.layout import RECIPE_FILE, RESULTS_FILE, SPACE_FILE, UNFINISHED
from yolo_dist.lease import LEASE_FILE, hold, read_holder
from yolo_dist.object_store import is_remote, persistently, require_reachable
from yolo_dist.recipe import Recipe, read_recipe
from yolo_dist.storage import Url, local_copy, location, publish_folder, remove


@dataclass(frozen=True)
class Run:
    """A run as its folder tells it.

    Attributes:
        name: of the run and its folder.
        stages: how many its recipe has.
        done: ids of the stages that are there.
        map50: of the last stage that is there; None where there is none.
        bytes: of all its files.
        unfinished_bytes: of those that `clean` takes away.
        holder: who has it or had it; None for nobody.
        problem: why its recipe or results cannot be read, and so nothing is known of stages; None where they can.
    """

    name: str
    stages: int
    done: tuple[str, ...]
    map50: float | None
    bytes: int
    unfinished_bytes: int
    holder: str | None
    problem: str | None


def list_runs(storage: Url) -> list[Run]:
    """The runs directly below a folder or URL, by name.

    Raises:
        StorageError: it cannot be reached.
        ConfigError: there is no such folder.
    """
    folder = location(storage)
    require_reachable(folder)
    if not folder.is_dir():
        raise ConfigError(str(folder), ["is no folder; give what a recipe calls storage"])
    return [look_at(path) for path in sorted(folder.iterdir(), key=lambda path: path.name) if _is_run(path)]


def look_at(folder: UPath) -> Run:
    """A run.

    Raises:
        ConfigError: there is none in this folder.
    """
    _require_run(folder)
    stages, results, problem = 0, list[dict[str, Any]](), None
    try:
        stages, results = len(recipe_of(folder).stages), results_of(folder)
    except InputError as error:
        problem = str(error).splitlines()[0]
    holder, sizes = read_holder(folder), [*_sizes(folder)]
    return Run(
        name=folder.name,
        stages=stages,
        done=tuple(result["id"] for result in results),
        map50=results[-1]["map50"] if results else None,
        bytes=_bytes(sizes),
        unfinished_bytes=_bytes(sizes, UNFINISHED),
        holder=None if holder is None else str(holder),
        problem=problem,
    )


def recipe_of(folder: UPath) -> Recipe:
    """The recipe of a run, as it was resolved.

    Raises:
        ConfigError: there is none.
    """
    _require_run(folder)
    with local_copy(folder / RECIPE_FILE) as file:
        return read_recipe(str(file))


def results_of(folder: UPath) -> list[dict[str, Any]]:
    """What the stages measured that are there; none before the first.

    Raises:
        DataError: their file is damaged.
    """
    file = folder / RESULTS_FILE
    try:
        found: list[dict[str, Any]] = json.loads(file.read_bytes())
    except FileNotFoundError:
        return []
    except ValueError as error:
        raise DataError(
            f"{file}: is damaged ({error}); run the recipe again, which does no finished stage again"
        ) from None
    return found


def pull(folder: UPath, destination: Path) -> int:
    """Copy a run without what is unfinished in it to a local folder, completely or not at all; the bytes copied.

    Raises:
        ConfigError: there is no run, or `destination` holds something else than an earlier copy of one or is the run
            itself, or a name in an object store leads out of it.
    """
    _require_run(folder)
    if not is_remote(folder) and Path(folder.path).resolve() == destination.resolve():
        raise ConfigError(str(folder), ["is the run itself, not a copy; give another --out"])
    copied = 0
    with publish_folder(location(destination), last=RECIPE_FILE) as target:
        for name, size in _sizes(folder):
            if name.partition("/")[0] in UNFINISHED or LEASE_FILE.fullmatch(name):
                continue
            if {"", ".."} & set(name.split("/")):
                raise ConfigError(str(folder), [f"has a file called {name}, which would land outside; delete it there"])
            file = target / name
            file.parent.mkdir(parents=True, exist_ok=True)
            source = folder / name
            persistently(source, lambda source=source, file=file: source.fs.get_file(source.path, str(file)))  # type: ignore[misc]
            copied += size
    return copied


def clean(folder: UPath, say: Callable[[str], None], whole: bool = False) -> int:
    """Delete what is unfinished in a run, checkpoints too, or the whole run; the bytes freed.

    `say` is told where it has to be found out whether somebody who wrote the run is alive.

    Raises:
        RunHeld: somebody writes it.
        ConfigError: there is no run.
    """
    _require_run(folder)
    freed = _bytes(_sizes(folder), None if whole else UNFINISHED)
    with hold(folder, say) as lease:
        if whole:
            lease.remove_folder()
        else:
            for name in UNFINISHED:
                remove(folder / name)
    return freed


def _is_run(folder: UPath) -> bool:
    return (folder / RECIPE_FILE).exists() and not (folder / SPACE_FILE).exists()


def _require_run(folder: UPath) -> None:
    if not _is_run(folder):
        raise ConfigError(
            str(folder), [f"is no run, it has no {RECIPE_FILE}; `yolo-dist runs list STORAGE` names runs"]
        )


def _bytes(sizes: Iterable[tuple[str, int]], parts: Collection[str] | None = None) -> int:
    """Of all files, or of those in some folders of the run."""
    return sum(size for name, size in sizes if parts is None or name.partition("/")[0] in parts)


def _sizes(folder: UPath) -> Iterator[tuple[str, int]]:
    """Name below the folder and bytes of every file."""
    root = folder.path.rstrip("/")
    for path, details in persistently(folder, lambda: folder.fs.find(root, detail=True)).items():
        yield path[len(root) + 1 :], details["size"]
