"""Checkpoints: states of a training that survive what happens to the process, one folder each.

A folder `step-000000120` holds tensors as safetensors and everything else as JSON, with the hash of the tensors in it.
Nothing is ever unpickled. It is published at once, older ones go only after that, and one that does not verify is
passed over for the one before.
"""

import hashlib
import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor
from upath import UPath

from yolo_dist.config import Config
from yolo_dist.console import say
from yolo_dist.errors import TrainError
from yolo_dist.object_store import is_remote, persistently
from yolo_dist.shortage import is_full_disk
from yolo_dist.storage import local_copy, publish_folder, remove, sha256

FORMAT = 1
"""Counts up when a state is no longer what it was: stages that have older checkpoints begin anew."""
KEPT = 2
PACKAGE, CODE_DIGITS = Path(__file__).parents[1], 8

PREFIX = "step-"
TENSORS_FILE, RECORD_FILE = "state.safetensors", "checkpoint.json"

State = dict[str, Any]
"""Dicts in dicts, with tensors, numbers and text at their ends; names are free of slashes."""


class CheckpointRecord(Config):
    """A checkpoint without its tensors, and what says that they are right."""

    format: int
    code: str
    """What `code_version` was when it was written."""
    sha256: str
    """Hex digest of the file of tensors."""
    state: State


class Checkpoints:
    """The checkpoints of one stage.

    Args:
        folder: path or URL that holds them; other things may lie there too.
        kept: how many of them.
    """

    def __init__(self, folder: UPath, kept: int | None = None) -> None:
        self.folder = folder
        self.kept = kept or KEPT

    def save(self, step: int, state: State) -> None:
        """Publish the state after so many steps; those before it go then, but for the newest.

        Raises:
            TrainError: it cannot be written; earlier ones are still there.
        """
        target = self.folder / f"{PREFIX}{step:09d}"
        earlier = [path for path in self._folders() if path.name < target.name]
        try:
            remove(target)  # one that did not verify
            with publish_folder(target, last=RECORD_FILE) as folder:
                _write(folder, state)
        except (OSError, SafetensorError) as error:
            # on its way to a URL it is written to a temporary folder first
            place = tempfile.gettempdir() if is_remote(target) and is_full_disk(error) else target
            reason = error.strerror if isinstance(error, OSError) and error.strerror else " ".join(str(error).split())
            going_on = f"goes on from {earlier[0].name}" if earlier else "begins anew"
            raise TrainError(
                f"{place}: the checkpoint cannot be written ({reason}); make room, then the same command {going_on}"
            ) from error
        for path in self._folders():
            if path.name > target.name or path in earlier[self.kept - 1 :]:
                remove(path)

    def newest(self, tell: bool = True) -> State | None:
        """The newest state that verifies; None where there is none, or none of this format.

        Args:
            tell: whether to say what was wrong with newer ones, and which other code wrote it.

        Raises:
            OSError: one cannot be read, whole as it may be; to go back would remove it with the next save.
        """
        for path in self._folders():
            try:
                values = json.loads(persistently(path, (path / RECORD_FILE).read_text))
                state = _read(path, values) if values["format"] == FORMAT else None
                if tell:
                    _tell_of_other_code(path, values["format"], values["code"])
                return state
            except (FileNotFoundError, ValueError, LookupError, TypeError, SafetensorError) as error:
                if tell:
                    say(f"{path}: damaged, going back to the one before ({' '.join(str(error).split())})")
            except OSError as error:
                if error.filename is not None or is_full_disk(error):
                    raise
                raise OSError(error.errno, error.strerror, str(path)) from error  # reading does not name the file
        return None

    def _folders(self) -> list[UPath]:
        """From the newest on."""
        if not self.folder.exists():
            return []
        return sorted((path for path in self.folder.iterdir() if path.name.startswith(PREFIX)), reverse=True)


def has_checkpoints(folder: UPath) -> bool:
    """Whether a training left its state in a folder."""
    return bool(Checkpoints(folder)._folders())


def seconds_trained(folder: UPath) -> float:
    """Seconds that a training took up to the newest state that it left in a folder; 0 where that says nothing."""
    for newest in Checkpoints(folder)._folders()[:1]:
        with suppress(OSError, ValueError, LookupError, TypeError):
            return float(json.loads((newest / RECORD_FILE).read_text())["state"]["seconds"])
    return 0.0


@cache
def code_version() -> str:
    """Version of the package, as far as it is installed, and a hash of its code, which changes more often."""
    try:
        released = version("yolo-dist")
    except PackageNotFoundError:
        released = "unknown"
    code = hashlib.sha256()
    for path in sorted(PACKAGE.rglob("*.py")):
        code.update(path.read_bytes())
    return f"{released}+{code.hexdigest()[:CODE_DIGITS]}"


def _write(folder: Path, state: State) -> None:
    values, tensors = _split(state)
    path = folder / TENSORS_FILE
    save_file(tensors, path)
    with path.open("rb") as file:
        os.fsync(file.fileno())  # before the rename: the ones before may go after it
    record = CheckpointRecord(format=FORMAT, code=code_version(), sha256=sha256(UPath(path)), state=values)
    with (folder / RECORD_FILE).open("w") as text:
        text.write(record.model_dump_json())
        text.flush()
        os.fsync(text.fileno())


def _read(path: UPath, values: Any) -> State:
    record = CheckpointRecord.model_validate(values)
    with local_copy(path / TENSORS_FILE) as file:
        if sha256(UPath(file)) != record.sha256:
            raise ValueError(f"{TENSORS_FILE} does not match its hash")
        return _joined(record.state, load_file(file))


def _tell_of_other_code(path: UPath, written_format: int, code: str) -> None:
    if written_format != FORMAT:
        say(f"{path}: written by yolo-dist {code} in format {written_format}, not {FORMAT}; beginning anew")
    elif code != code_version():
        say(f"{path}: written by yolo-dist {code}, this is {code_version()}; going on")


def _split(state: State) -> tuple[State, dict[str, Tensor]]:
    """A state without its tensors, and these by their path in it."""
    tensors = dict(_tensors(state))
    return _without_tensors(state), tensors


def _tensors(state: State, prefix: str = "") -> Iterator[tuple[str, Tensor]]:
    for name, value in state.items():
        if isinstance(value, dict):
            yield from _tensors(value, f"{prefix}{name}/")
        elif isinstance(value, Tensor):
            yield prefix + name, value.contiguous()


def _without_tensors(state: State) -> State:
    return {
        name: _without_tensors(value) if isinstance(value, dict) else value
        for name, value in state.items()
        if not isinstance(value, Tensor)
    }


def _joined(values: State, tensors: dict[str, Tensor]) -> State:
    """What was split."""
    for path, tensor in tensors.items():
        *parents, name = path.split("/")
        place = values
        for parent in parents:
            place = place[parent]
        place[name] = tensor
    return values
