"""A network for an FPGA that multiplies and shifts integers: binary files and an index (docs/fpga.md)."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError
from torch import Tensor

from yolo_dist.compress.quantization import QuantizedNetwork
from yolo_dist.compress.quantization.integer import IntegerNetwork, integer_network
from yolo_dist.compress.quantization.integer.operations import IMAGE, Operation
from yolo_dist.errors import DumpCorrupt, NotExportable
from yolo_dist.export.integer_arrays import is_record, read_array, write_array
from yolo_dist.export.tiles import Tile
from yolo_dist.storage import location, publish_folder

INDEX_FILE = "index.json"
FORMAT = 1
SETTINGS = ("power_of_two", "fold_batchnorm")
"""With both, every rescaling is a shift."""


def export_fpga(network: QuantizedNetwork, folder: Path, tile: Tile | None = None) -> None:
    """Write a calibrated network's integers into a folder, completely or not at all.

    Args:
        network: quantised with `power_of_two` and `fold_batchnorm`.
        folder: where to; an earlier dump there is replaced.
        tile: output and input channels of the tiles in whose order weights are written; None: their own order.

    Raises:
        NotExportable: the network needs more than shifts, or is not all integers; names the settings or the layer.
        NotCalibrated: there are no ranges.
        ConfigError: `folder` holds other files.
    """
    if missing := [name for name in SETTINGS if not getattr(network.config, name)]:
        raise NotExportable(
            f"an FPGA rescales by shifts, which takes {' and '.join(f'{name}: true' for name in missing)}; "
            "quantise the network again with that"
        )
    integers = integer_network(network)
    assert integers.shifts_only
    with publish_folder(location(folder), last=INDEX_FILE) as staging:
        index = {
            "format": FORMAT,
            "image": asdict(integers.image),
            "image_shape": integers.image_shape,
            "operations": [_write_operation(*numbered, staging, tile) for numbered in enumerate(integers.operations)],
            "heads": [asdict(head) for head in integers.heads],
        }
        (staging / INDEX_FILE).write_text(json.dumps(index, indent=1) + "\n")


def _write_operation(place: int, operation: Operation, folder: Path, tile: Tile | None) -> Any:
    """The entry of the index, with the arrays' records in their places; the arrays are written."""

    def packed(value: Any, key: str) -> Any:
        if isinstance(value, Tensor):
            path = folder / f"{place:03d}-{operation.name}{key}.bin"
            return write_array(value, path, tile if key == ".weight" else None).model_dump()
        if isinstance(value, dict):
            return {name: packed(part, f"{key}.{name}") for name, part in value.items() if name != "multiplier"}
        if isinstance(value, tuple):
            return [packed(part, f"{key}.{number}") for number, part in enumerate(value)]
        return value

    return packed(asdict(operation), "")


def read_fpga(folder: Path) -> IntegerNetwork:
    """The network of a dump, bit for bit.

    Raises:
        DumpCorrupt: a file is missing or damaged, or the index is none; names it.
    """
    path = folder / INDEX_FILE
    try:
        index = json.loads(path.read_bytes())
    except OSError as error:
        raise DumpCorrupt(
            f"{path}: cannot be read ({error.strerror}); give the folder that an export to fpga wrote"
        ) from None
    except ValueError as error:
        raise DumpCorrupt(f"{path}: no JSON ({error}); copy the whole folder again") from None
    if not isinstance(index, dict) or index.pop("format", None) != FORMAT:
        raise DumpCorrupt(f"{path}: not of format {FORMAT}; export the network again")
    values = _with_arrays(index, folder)
    try:
        network = TypeAdapter(IntegerNetwork).validate_python(values)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise DumpCorrupt(f"{path}: {place}: {first['msg']}; export the network again") from None
    if problem := _wrong_reference(network):
        raise DumpCorrupt(f"{path}: {problem}; export the network again")
    return network


def _wrong_reference(network: IntegerNetwork) -> str | None:
    for number, operation in enumerate(network.operations):
        for source in operation.sources:
            if not IMAGE <= source < number:
                return f"{operation.name} reads operation {source}, which does not come before it"
    accumulators = [number for number, operation in enumerate(network.operations) if operation.grid is None]
    for head in network.heads:
        if head.operation not in accumulators:
            return f"a head reads operation {head.operation}, which gives no accumulators"
    return None


def _with_arrays(value: Any, folder: Path) -> Any:
    """What an index holds, with the arrays in the places of their records."""
    if is_record(value):
        return read_array(value, folder)
    if isinstance(value, dict):
        return {name: _with_arrays(part, folder) for name, part in value.items()}
    return [_with_arrays(part, folder) for part in value] if isinstance(value, list) else value
