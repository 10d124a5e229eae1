"""The time that a search ran, without the time that it did not."""

import time
from pathlib import Path

import pytest
from upath import UPath

from yolo_dist.tune.pauses import PAUSES_FILE, Pause, note_pause, read_pauses, running_seconds


@pytest.mark.parametrize(
    ("pauses", "seconds"),
    [
        pytest.param([], 100, id="none"),
        pytest.param([(20, 50)], 70, id="one"),
        pytest.param([(20, 50), (90, 95)], 65, id="two"),
        pytest.param([(-30, 20)], 80, id="from before the first trial"),
        pytest.param([(80, 300)], 80, id="beyond the moment in question"),
        pytest.param([(-30, -10), (101, 102)], 100, id="outside"),
    ],
)
def test_a_pause_is_no_time_that_a_search_took(pauses: list[Pause], seconds: float) -> None:
    assert running_seconds(1000, 1100, [(1000 + start, 1000 + end) for start, end in pauses]) == seconds


def test_pauses_are_noted_one_after_another(tmp_path: Path) -> None:
    search, before = UPath(tmp_path), time.time()
    assert read_pauses(search) == []
    note_pause(search, 10.0)
    note_pause(search, 20.0)
    assert [start for start, _ in read_pauses(search)] == [10, 20]
    assert all(before <= end <= time.time() for _, end in read_pauses(search))


@pytest.mark.parametrize("content", ["", "no JSON", "[1]", '[["a", "b"]]', "{}"])
def test_a_file_that_cannot_be_read_is_none(tmp_path: Path, content: str) -> None:
    (tmp_path / PAUSES_FILE).write_text(content)
    assert read_pauses(UPath(tmp_path)) == []
