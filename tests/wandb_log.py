"""What the client of Weights & Biases wrote offline, read back without it."""

import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from wandb.proto import wandb_internal_pb2

BLOCK, HEADER = 1 << 15, 7


def records(folder: Path) -> list[Any]:
    """The records of all offline runs beside a run, oldest run first."""
    files = sorted(folder.glob("wandb/offline-run-*/*.wandb"), key=lambda file: file.stat().st_mtime_ns)
    return [record for file in files for record in read_records(file)]


def read_records(path: Path) -> Iterator[Any]:
    """The records of a `.wandb` file: LevelDB's log format in blocks of 32 KiB, after a header of seven bytes."""
    content, place, parts = path.read_bytes(), HEADER, b""
    while place + HEADER <= len(content):
        left = BLOCK - place % BLOCK
        if left < HEADER:  # padding
            place += left
            continue
        _, length, kind = struct.unpack_from("<IHB", content, place)
        parts += content[place + HEADER : place + HEADER + length]
        place += HEADER + length
        if kind in (1, 4):  # whole, or the last part
            record = wandb_internal_pb2.Record()  # type: ignore[attr-defined]  # made when it is imported
            record.ParseFromString(parts)
            parts = b""
            yield record


def runs(folder: Path) -> list[Any]:
    """The runs as they introduce themselves."""
    return [record.run for record in records(folder) if record.HasField("run")]


def configurations(folder: Path) -> list[dict[str, Any]]:
    """The configuration with which each run introduces itself, without the client's own part."""
    found = [{item.key: json.loads(item.value_json) for item in run.config.update} for run in runs(folder)]
    return [{key: value for key, value in one.items() if key != "_wandb"} for one in found]


def artifacts(folder: Path) -> list[Any]:
    """The artifacts that were logged."""
    return [record.artifact for record in records(folder) if record.HasField("artifact")]


def history(folder: Path) -> list[dict[str, Any]]:
    """Every logged step: keys, those of nested values joined with slashes, and values."""
    return [_values(record.history.item) for record in records(folder) if record.HasField("history")]


def summary(folder: Path) -> dict[str, Any]:
    """What is left at the end under every key."""
    updates = (record.summary.update for record in records(folder) if record.HasField("summary"))
    return {key: value for update in updates for key, value in _values(update).items()}


def _values(items: Any) -> dict[str, Any]:
    return {"/".join(item.nested_key) or item.key: json.loads(item.value_json) for item in items}
