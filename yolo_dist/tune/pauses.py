"""When a search did not run: from its interruption to `--resume`, which is no time that it took."""

import json
import time
from collections.abc import Iterable

from upath import UPath

from yolo_dist.object_store import persistently
from yolo_dist.storage import publish

PAUSES_FILE = "pauses.json"

Pause = tuple[float, float]
"""From when to when, in seconds since 1970."""


def note_pause(search: UPath, since: float) -> None:
    """Write down that a search goes on now, which had stopped at `since`."""
    publish(search / PAUSES_FILE, json.dumps([*read_pauses(search), (since, time.time())]))


def read_pauses(search: UPath) -> list[Pause]:
    """All of a search; none where that cannot be read."""
    file = search / PAUSES_FILE
    try:
        return [(float(start), float(end)) for start, end in json.loads(persistently(file, file.read_bytes))]
    except (FileNotFoundError, NotADirectoryError, TypeError, ValueError):
        return []


def running_seconds(began: float, until: float, pauses: Iterable[Pause]) -> float:
    """How long a search ran between two moments."""
    return until - began - sum(max(0.0, min(end, until) - max(start, began)) for start, end in pauses)
