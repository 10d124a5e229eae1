"""Storage: local paths and URLs behave alike, and what is published is there completely or not at all."""

import errno
import hashlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from upath import UPath

from yolo_dist.errors import ConfigError, StorageError
from yolo_dist.object_store import TIMEOUT_VARIABLE, ObjectStoreConfig, is_remote, require_reachable
from yolo_dist.storage import local_copy, location, publish, publish_folder, remove, sha256

MARKER = "done.json"


@pytest.fixture(params=["local", "memory"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[UPath]:
    """An empty place on this machine's disk, and one in another file system."""
    if request.param == "local":
        yield location(tmp_path)
        return
    remote = location(f"memory://{tmp_path.name}")
    yield remote
    if remote.exists():
        remote.fs.rm(remote.path, recursive=True)


def files_below(folder: UPath) -> dict[str, bytes]:
    if not folder.exists():
        return {}
    return {path.path.removeprefix(folder.path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def fail(_descriptor: int = 0) -> None:
    raise OSError("disk is full")


def publish_halfway(destination: UPath) -> None:
    with publish_folder(destination, last=MARKER) as folder:
        (folder / MARKER).write_bytes(b"new")
        fail()


@pytest.mark.parametrize(
    ("url", "remote"),
    [("runs", False), ("/tmp/runs", False), ("file:///tmp/runs", False), ("memory://runs", True)],
)
def test_a_location_knows_whether_it_is_on_this_machine(url: str, remote: bool) -> None:
    assert is_remote(location(url)) is remote


def test_local_locations_are_absolute_and_know_the_home_folder() -> None:
    assert location("runs/hand").path == str(Path.cwd() / "runs" / "hand")
    assert location("~/runs").path == str(Path.home() / "runs")
    assert location("file:///data/hand").path == "/data/hand"


def test_a_location_of_a_location_is_itself(place: UPath) -> None:
    assert location(location(place / "a")) == place / "a"


def test_an_unknown_protocol_is_an_error_that_names_the_url() -> None:
    with pytest.raises(ConfigError, match=r"^nosuch://bucket/hand: .*s3://bucket/folder$"):
        location("nosuch://bucket/hand")


@settings(deadline=None)
@given(content=st.binary(max_size=300))
def test_sha256_is_that_of_the_whole_file(content: bytes) -> None:
    path = location("memory://hashes/file")
    publish(path, content)
    assert sha256(path) == hashlib.sha256(content).hexdigest()


def test_publish_makes_folders_and_replaces_what_was_there(place: UPath) -> None:
    for content in (b"first", "zweite Fassung: é"):
        publish(place / "a" / "b" / "file.txt", content)
    assert files_below(place) == {"/a/b/file.txt": "zweite Fassung: é".encode()}


def test_a_published_file_can_be_read_by_others(tmp_path: Path) -> None:
    publish(location(tmp_path / "file"), b"content")
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o644


def test_a_publish_that_fails_leaves_the_old_file_and_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = location(tmp_path / "file")
    publish(path, b"old")
    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="disk is full"):
        publish(path, b"new")
    assert files_below(location(tmp_path)) == {"/file": b"old"}


def test_a_publish_that_fails_names_the_file_that_was_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "no room", ".temporary")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="no room") as error:
        publish(location(tmp_path / "file"), b"content")
    assert error.value.filename == str(tmp_path / "file")


def test_a_local_file_is_not_copied(tmp_path: Path) -> None:
    publish(location(tmp_path / "file"), b"content")
    with local_copy(location(tmp_path / "file")) as path:
        assert path == tmp_path / "file"


def test_a_remote_file_or_folder_is_downloaded_for_as_long_as_it_is_used() -> None:
    remote = location("memory://downloads/bundle")
    publish(remote / "model.cfg", b"cfg")
    publish(remote / "samples" / "0.jpg", b"jpeg")
    with local_copy(remote) as folder:
        assert (folder / "model.cfg").read_bytes() == b"cfg"
        assert (folder / "samples" / "0.jpg").read_bytes() == b"jpeg"
    with local_copy(remote / "model.cfg") as file:
        assert file.read_bytes() == b"cfg"
    assert not folder.exists()
    assert not file.exists()


def test_a_folder_is_published_with_everything_in_it(place: UPath) -> None:
    with publish_folder(place / "bundle", last=MARKER) as folder:
        (folder / "samples").mkdir()
        (folder / "samples" / "0.jpg").write_bytes(b"jpeg")
        (folder / MARKER).write_bytes(b"{}")
        assert not (place / "bundle" / MARKER).exists()
    assert files_below(place) == {"/bundle/samples/0.jpg": b"jpeg", f"/bundle/{MARKER}": b"{}"}


def test_a_block_that_fails_leaves_nothing(place: UPath) -> None:
    with pytest.raises(OSError, match="disk is full"):
        publish_halfway(place / "bundle")
    assert files_below(place) == {}
    assert not place.exists() or list(place.iterdir()) == []


def test_a_block_that_fails_keeps_what_was_there(place: UPath) -> None:
    publish(place / "bundle" / MARKER, b"old")
    with pytest.raises(OSError, match="disk is full"):
        publish_halfway(place / "bundle")
    assert files_below(place) == {f"/bundle/{MARKER}": b"old"}


def test_a_folder_published_again_replaces_the_old_one(place: UPath) -> None:
    for name in ("old", "new"):
        with publish_folder(place / "bundle", last=MARKER) as folder:
            (folder / "samples").mkdir()
            (folder / "samples" / name).write_bytes(b"")
            (folder / MARKER).write_text(name)
    assert files_below(place) == {"/bundle/samples/new": b"", f"/bundle/{MARKER}": b"new"}


def test_files_of_others_in_an_object_store_stay(tmp_path: Path) -> None:
    remote = location(f"memory://others/{tmp_path.name}")
    publish(remote / "photo.jpg", b"a user's only copy")
    with publish_folder(remote, last=MARKER) as folder:
        (folder / MARKER).write_bytes(b"{}")
    assert files_below(remote) == {"/photo.jpg": b"a user's only copy", f"/{MARKER}": b"{}"}


def test_what_a_killed_process_left_goes_when_the_next_one_publishes(tmp_path: Path) -> None:
    program = (
        "import os, signal, sys\n"
        "from yolo_dist.storage import location, publish_folder\n"
        "with publish_folder(location(sys.argv[1])):\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    killed = subprocess.run([sys.executable, "-c", program, str(tmp_path / "bundle")], check=False)
    assert killed.returncode == -signal.SIGKILL
    (left,) = tmp_path.iterdir()
    os.utime(left, (0, 0))
    with publish_folder(location(tmp_path / "another")):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["another"]


def test_an_object_store_gets_the_marker_after_all_other_files(monkeypatch: pytest.MonkeyPatch) -> None:
    remote = location("memory://order/split")
    publish(remote / MARKER, b"old")
    seen: list[tuple[str, bool]] = []
    write = type(remote).write_bytes

    def record(path: UPath, data: bytes) -> int:
        seen.append((path.name, (remote / MARKER).exists()))
        return write(path, data)

    monkeypatch.setattr(type(remote), "write_bytes", record)
    with publish_folder(remote, last=MARKER) as folder:
        for name in ("z.arrow", MARKER, "a.arrow"):
            (folder / name).write_bytes(b"new")
    assert seen == [("a.arrow", False), ("z.arrow", False), (MARKER, False)]
    assert (remote / MARKER).read_bytes() == b"new"


def test_a_folder_of_other_files_is_never_replaced(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "0.jpg").write_bytes(b"a user's only copy")
    with (
        pytest.raises(ConfigError, match=rf"photos: holds other files \(no {MARKER}"),
        publish_folder(location(tmp_path / "photos"), last=MARKER),
    ):
        pytest.fail("the work must not start")
    assert files_below(location(tmp_path)) == {"/photos/0.jpg": b"a user's only copy"}


def test_a_file_is_never_replaced_by_a_folder(tmp_path: Path) -> None:
    (tmp_path / "notes").write_bytes(b"text")
    with pytest.raises(ConfigError, match="notes: is a file"), publish_folder(location(tmp_path / "notes")):
        pytest.fail("the work must not start")
    assert files_below(location(tmp_path)) == {"/notes": b"text"}


def test_an_empty_folder_may_be_filled(tmp_path: Path) -> None:
    with publish_folder(location(tmp_path), last=MARKER) as folder:
        (folder / MARKER).write_bytes(b"{}")
    assert files_below(location(tmp_path)) == {f"/{MARKER}": b"{}"}


def test_a_folder_that_fails_leaves_no_folder_above_it(tmp_path: Path) -> None:
    (tmp_path / "kept").mkdir()
    with pytest.raises(RuntimeError, match="planted"), publish_folder(location(tmp_path / "kept" / "a" / "b")):
        raise RuntimeError("planted")
    assert list(tmp_path.iterdir()) == [tmp_path / "kept"]
    assert list((tmp_path / "kept").iterdir()) == []


def test_a_folder_above_in_which_others_write_stays(tmp_path: Path) -> None:
    def fail() -> None:
        with publish_folder(location(tmp_path / "a" / "b")):
            (tmp_path / "a" / "other").write_text("not ours")
            raise RuntimeError("planted")

    with pytest.raises(RuntimeError, match="planted"):
        fail()
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["other"]


def test_a_file_never_replaces_a_folder(tmp_path: Path) -> None:
    with pytest.raises(IsADirectoryError, match=str(tmp_path)):
        publish(location(tmp_path), b"content")
    assert list(tmp_path.iterdir()) == []


def test_a_store_without_credentials_is_an_error_that_names_its_url(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    for name in ("AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE"):
        monkeypatch.setenv(name, "/nowhere")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    with pytest.raises(StorageError, match=r"^s3://bucket/model: cannot be used: .*AWS_ACCESS_KEY_ID"):
        require_reachable(location(UPath("s3://bucket/model", skip_instance_cache=True)))


def test_the_timeout_of_a_recipe_is_that_of_its_requests(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(TIMEOUT_VARIABLE, "1")
    ObjectStoreConfig(timeout=3).apply()
    assert UPath("s3://bucket", skip_instance_cache=True).fs.config_kwargs["read_timeout"] == 3


@pytest.mark.parametrize("seconds", ["", "soon", "0", "-1", "nan", "inf"])
def test_a_timeout_that_is_no_number_of_seconds_is_refused(seconds: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(TIMEOUT_VARIABLE, seconds)
    with pytest.raises(StorageError, match=f"^{TIMEOUT_VARIABLE} is '{seconds}', not a number of seconds above 0"):
        require_reachable(location(UPath("s3://bucket/model", skip_instance_cache=True)))


@pytest.mark.parametrize("scheme", ["", "memory://"])
def test_a_folder_is_removed_wherever_it_is_and_a_missing_one_is_no_error(scheme: str, tmp_path: Path) -> None:
    folder = UPath(f"{scheme}{tmp_path}/checkpoints")
    (folder / "inner").mkdir(parents=True)
    (folder / "inner" / "state.pt").write_bytes(b"state")
    remove(folder)
    assert not folder.exists()
    remove(folder)
