"""Stages that several trials have in common: done once, taken by all others, waited for while they are being done.

In the search's folder: `shared/STAGE/KEY/` is a finished stage, `KEY.jsonl` beside it what its epochs left, and
`shared/STAGE/` also has what is unfinished, and who is at it, so that who takes over a dead trial's stage goes on from
its last checkpoint, with the epochs that led to it.
"""

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

from upath import UPath

from yolo_dist.layout import METRICS_FILE, STAGE_FILE
from yolo_dist.lease import hold_unless_done
from yolo_dist.object_store import persistently
from yolo_dist.storage import copy_folder, location, publish, remove
from yolo_dist.train.tracking import read_metrics

KEY_DIGITS = 16
LEASES = "leases"
"""Folder in which each stage that is being done has one of its own, for the files that say by which process, and beside
it a file that says for which run."""


@dataclass(frozen=True)
class SharedStages:
    """The finished stages of a search's trials.

    Attributes:
        folder: where they lie.
    """

    folder: UPath

    @contextmanager
    def doing(self, stage: str, key: str, run: UPath, is_whole: Callable[[], bool]) -> Iterator[UPath]:
        """A stage of one trial's run: it is there when the block begins, or the block does it, and all others wait.

        One that is kept but damaged is done again, once for all who need it.
        """
        shared, target = self.folder / stage, run / "stages" / stage
        name = key[:KEY_DIGITS]
        kept, epochs, owner = shared / name, shared / f"{name}.jsonl", shared / LEASES / f"{name}.run"

        damaged = None

        def taken() -> bool:
            nonlocal damaged
            with suppress(FileNotFoundError, shutil.Error):  # it is not there, or goes because it is done anew
                record = persistently(kept, (kept / STAGE_FILE).read_bytes)
                if record == damaged:
                    return False
                copy_folder(kept, target, STAGE_FILE)
                if is_whole():
                    return True
                damaged = record  # not to be copied again at every look
            return False

        with hold_unless_done(shared / LEASES / name, taken) as lease:
            if lease is None:
                _take_epochs(run, stage, read_metrics(epochs))
            else:
                if (before := _read_owner(owner)) is not None and before != run:
                    _take_epochs(run, stage, _epochs_of(before, stage))
                    _take_finished(before / "stages" / stage, key, target)
                publish(owner, str(run))
            yield shared
            # who was away too long has done the stage for this trial alone: another one is doing it for all
            if lease is not None and not lease.lost:
                _write(epochs, _epochs_of(run, stage))
                remove(kept)  # what is damaged, or was copied in part
                copy_folder(target, kept, STAGE_FILE)
                remove(owner)


def _read_owner(file: UPath) -> UPath | None:
    """The run that did the stage last and did not finish it."""
    try:
        return location(persistently(file, file.read_text))
    except FileNotFoundError:
        return None


def _take_finished(finished: UPath, key: str, target: UPath) -> None:
    """Copy another run's stage if it is there with this key: that run died before it kept the stage for all."""
    record = finished / STAGE_FILE
    with suppress(FileNotFoundError, shutil.Error, LookupError, TypeError, ValueError):
        if json.loads(persistently(record, record.read_bytes))["key"] == key:
            copy_folder(finished, target, STAGE_FILE)


def _take_epochs(run: UPath, stage: str, lines: list[dict[str, Any]]) -> None:
    """Make those of another run this one's, in place of what it has of the stage."""
    others = [line for line in read_metrics(run / METRICS_FILE) if line["stage"] != stage]
    _write(run / METRICS_FILE, [*others, *lines])


def _epochs_of(run: UPath, stage: str) -> list[dict[str, Any]]:
    return [line for line in read_metrics(run / METRICS_FILE) if line["stage"] == stage]


def _write(metrics: UPath, lines: list[dict[str, Any]]) -> None:
    publish(metrics, "".join(json.dumps(line) + "\n" for line in lines))
