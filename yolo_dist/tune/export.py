"""Take one trial out of a search: its recipe, ready to be run again, and what it made."""

from upath import UPath

from yolo_dist.config import read_yaml
from yolo_dist.errors import ConfigError
from yolo_dist.layout import RECIPE_FILE, SPACE_FILE, STAGE_FILE
from yolo_dist.object_store import is_remote, reaching
from yolo_dist.storage import Url, copy_folder, local_copy, location, publish
from yolo_dist.tune.record import TrialRecord, read_records
from yolo_dist.tune.results import results_of
from yolo_dist.tune.space import Space, recipe_of, searched_space

MODEL_FOLDER = "model"


def export_trial(space: Space, trial: str, destination: Url | None = None) -> UPath:
    """Write a finished trial's `recipe.yaml` and, in `model/`, the bundle or exported file of its searched stage.

    Args:
        space: names the search, by `name` and `storage`; everything else is taken from what was searched.
        trial: its id, or `knee` for the one that is suggested.
        destination: the folder; `exported/TRIAL` in the search's by default.

    Returns:
        The folder.

    Raises:
        ConfigError: there is no such search or trial, it is not finished, or the folder holds something else; in an
            object store, that the recipe cannot be read, which says where it is.
        StorageError: the object store cannot be reached.
    """
    search = location(space.storage) / space.name
    if is_remote(search):
        first = {path: distribution.samples[0] for path, distribution in space.space.items()}
        recipe_of(space, read_yaml(space.recipe), first).object_store.apply()
    with reaching(search):
        if not (search / SPACE_FILE).exists():
            raise ConfigError(space.name, [f"no search lies in {search}; search first"])
    space = searched_space(search)
    record = _finished(space, search, trial)
    target = search / "exported" / record.id if destination is None else location(destination)
    if (target / RECIPE_FILE).exists() and not (target / MODEL_FOLDER / STAGE_FILE).exists():
        raise ConfigError(str(target), [f"holds another {RECIPE_FILE}; give an empty folder"])
    with local_copy(search / RECIPE_FILE) as file:
        recipe = recipe_of(space, read_yaml(file), record.values)
    name = f"{recipe.name}-{record.id}"
    stage = space.stage or record.stages[-1]["id"]
    copy_folder(search / "trials" / record.id / "stages" / stage, target / MODEL_FOLDER, STAGE_FILE)
    publish(target / RECIPE_FILE, recipe.model_copy(update={"name": name}).to_yaml())
    return target


def _finished(space: Space, search: UPath, trial: str) -> TrialRecord:
    records = read_records(search)
    if (record := results_of(space, records).trial(trial)) is None:
        known = ", ".join(other.id for other in records if other.state == "finished") or "none"
        why = ", for none lies within the constraints" if trial == "knee" and known != "none" else ""
        raise ConfigError(space.name, [f"there is no trial {trial}{why}; finished ones are {known}"])
    if record.state != "finished":
        reason = f": {record.reason}" if record.reason else ""
        raise ConfigError(space.name, [f"trial {record.id} is {record.state}{reason}; export a finished one"])
    return record
