"""Temporary folders go with their block, and what a killed process left goes with the next one's."""

import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from yolo_dist import temporary
from yolo_dist.temporary import PREFIX, temporary_folder

HOLDS_ONE = """
import time
from yolo_dist.temporary import temporary_folder
with temporary_folder() as folder:
    print(folder, flush=True)
    time.sleep(600)
"""


@pytest.fixture(autouse=True)
def system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The system's temporary folder, in which no folder is too young to be looked at."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(temporary, "YOUNG", -1.0)
    return tmp_path


def test_a_folder_goes_at_the_end_of_its_block(system: Path) -> None:
    with temporary_folder() as folder:
        (folder / "file").write_text("kept while it lasts")
        assert folder.parent == system
    assert list(system.iterdir()) == []


def test_a_folder_goes_when_its_block_fails(system: Path) -> None:
    with pytest.raises(RuntimeError), temporary_folder():
        raise RuntimeError
    assert list(system.iterdir()) == []


def test_what_a_killed_process_left_is_removed_and_what_a_living_one_has_is_not(system: Path) -> None:
    environment = {**os.environ, "TMPDIR": str(system)}
    with subprocess.Popen(
        [sys.executable, "-c", HOLDS_ONE], env=environment, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        theirs = Path(other.stdout.readline().strip())
        with temporary_folder():
            assert theirs.is_dir()
        other.send_signal(signal.SIGKILL)
        other.wait()
        assert theirs.is_dir()
        with temporary_folder() as ours:
            assert list(system.iterdir()) == [ours]


def test_folders_of_others_are_left_alone(system: Path) -> None:
    (system / "yolo-dist-results").mkdir()
    with temporary_folder():
        pass
    assert [path.name for path in system.iterdir()] == ["yolo-dist-results"]


def test_a_folder_beside_a_file_that_is_published_is_not_searched_for(tmp_path: Path) -> None:
    (tmp_path / f"{PREFIX}left").mkdir()
    with temporary_folder(tmp_path):
        pass
    assert (tmp_path / f"{PREFIX}left").is_dir()
