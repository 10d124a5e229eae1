"""Arrays of integers as files."""

from pathlib import Path

import pytest
import torch

from yolo_dist.errors import DumpCorrupt
from yolo_dist.export.integer_arrays import ArrayRecord, read_array, write_array


@pytest.mark.parametrize(
    ("numbers", "type_", "bits", "content"),
    [
        ([-128, 127], "int8", 8, "807f"),
        ([-3, 1], "int8", 3, "fd01"),
        ([0, 255], "uint8", 8, "00ff"),
        ([-129, 2], "int16", 9, "7fff0200"),
        ([1, 32768], "uint16", 16, "01000080"),
        ([-40000, 1], "int32", 17, "c063ffff01000000"),
        ([0, 1 << 40], "int64", 42, "00000000000000000000000000010000"),
    ],
)
def test_the_smallest_type_is_written_little_endian(
    tmp_path: Path, numbers: list[int], type_: str, bits: int, content: str
) -> None:
    record = write_array(torch.tensor(numbers), tmp_path / "a.bin")
    assert isinstance(record, ArrayRecord)
    assert (record.type, record.bits, record.shape) == (type_, bits, (2,))
    assert (tmp_path / "a.bin").read_bytes().hex() == content
    assert read_array(record.model_dump(), tmp_path).tolist() == numbers


def test_an_array_of_one_number_has_no_file(tmp_path: Path) -> None:
    record = write_array(torch.full((3, 2), -7), tmp_path / "a.bin")
    assert record.model_dump() == {"every": -7, "shape": (3, 2)}
    assert list(tmp_path.iterdir()) == []
    assert read_array(record.model_dump(), tmp_path).tolist() == [[-7, -7]] * 3


def test_weights_in_tiles_come_back_in_order(tmp_path: Path) -> None:
    weight = torch.arange(5 * 7 * 3 * 3).view(5, 7, 3, 3)
    record = write_array(weight, tmp_path / "a.bin", tile=(2, 4))
    write_array(weight, tmp_path / "b.bin")
    assert (tmp_path / "a.bin").read_bytes() != (tmp_path / "b.bin").read_bytes()
    assert read_array(record.model_dump(), tmp_path).equal(weight)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"file": "gone.bin"}, "gone.bin cannot be read"),
        ({"file": "../a.bin"}, "file: String should match"),
        ({"type": "float32"}, "type: String should match"),
        ({"shape": (3,)}, r"a.bin holds 2 numbers, not \(3,\)"),
        ({"shape": (-2,)}, "shape.0: Input should be greater"),
        ({"sha256": "0" * 64}, "a.bin is damaged"),
    ],
    ids=lambda value: str(value) if isinstance(value, dict) else "",
)
def test_a_wrong_record_is_named(tmp_path: Path, changes: dict[str, object], message: str) -> None:
    record = write_array(torch.tensor([1, 2]), tmp_path / "a.bin").model_dump() | changes
    with pytest.raises(DumpCorrupt, match=message):
        read_array(record, tmp_path)
