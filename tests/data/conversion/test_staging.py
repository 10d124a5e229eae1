"""Interrupted conversions: killed at any step, the same call finishes what was begun."""

import os
import shutil
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from made_datasets import good_yolo_dataset, yolo_card
from upath import UPath

from yolo_dist.data.conversion import convert as conversion
from yolo_dist.data.conversion import shard_writer, staging
from yolo_dist.data.conversion.convert import ConvertConfig, convert
from yolo_dist.data.conversion.index import plan_shards
from yolo_dist.data.formats import AnnotatedImage
from yolo_dist.data.shards import open_split
from yolo_dist.errors import ConfigError, ConversionError

SMALL = ConvertConfig(shard_bytes=5000)
FILE_EVENTS = ("open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "shutil.rmtree")

pytestmark = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return good_yolo_dataset(tmp_path / "in", 24)


@pytest.fixture
def expected(source: Path, tmp_path: Path) -> dict[str, bytes]:
    """What a conversion leaves that nothing interrupts."""
    convert(yolo_card(), source, tmp_path / "undisturbed", "train", SMALL)
    return files(tmp_path / "undisturbed")


def killed_at(event: int, source: Path, destination: Path, config: ConvertConfig) -> bool:
    """Convert in a process that is killed at its n-th action on a file; False if it ended before."""
    child = os.fork()
    if child:
        _, status = os.waitpid(child, 0)
        return os.WIFSIGNALED(status)
    seen = 0

    def kill(name: str, arguments: tuple[Any, ...]) -> None:
        nonlocal seen
        if name in FILE_EVENTS and str(destination) in str(arguments):
            seen += 1
            if seen == event:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(kill)
    try:
        convert(yolo_card(), source, destination, "train", config)
    finally:
        os._exit(0)


def test_killed_at_any_step_it_goes_on_and_ends_as_if_nothing_had_happened(
    source: Path, expected: dict[str, bytes], tmp_path: Path
) -> None:
    event = 1
    while killed_at(event, source, tmp_path / "out", SMALL):
        if not (tmp_path / "out" / "train" / "manifest.json").exists():
            convert(yolo_card(), source, tmp_path / "out", "train", SMALL)
        assert files(tmp_path / "out") == expected
        shutil.rmtree(tmp_path / "out")
        event += 1
    assert event > 30


def test_a_replacement_killed_at_any_step_leaves_the_old_or_the_new(
    source: Path, expected: dict[str, bytes], tmp_path: Path
) -> None:
    convert(yolo_card(), good_yolo_dataset(tmp_path / "other", 5), tmp_path / "old", "train", SMALL)
    old, overwrite = files(tmp_path / "old"), SMALL.model_copy(update={"overwrite": True})
    event, between = 1, 0
    shutil.copytree(tmp_path / "old", tmp_path / "out")
    while killed_at(event, source, tmp_path / "out", overwrite):
        found = {name: data for name, data in files(tmp_path / "out").items() if name.startswith("train/")}
        between += found not in (old, expected)
        convert(yolo_card(), source, tmp_path / "out", "train", overwrite)
        assert files(tmp_path / "out") == expected
        shutil.rmtree(tmp_path / "out")
        shutil.copytree(tmp_path / "old", tmp_path / "out")
        event += 1
    assert event > 30
    assert between <= 1  # a folder that is not empty cannot be replaced in one step


def test_of_two_at_once_the_second_is_refused(source: Path, expected: dict[str, bytes], tmp_path: Path) -> None:
    def another(_done: int, _total: int) -> None:
        with pytest.raises(ConversionError, match="train: another process is converting it; wait for it or stop it"):
            convert(yolo_card(), source, tmp_path / "out", "train", SMALL)

    convert(yolo_card(), source, tmp_path / "out", "train", SMALL, another)
    assert files(tmp_path / "out") == expected


def test_who_reads_annotations_while_another_finishes_leaves_what_is_there(
    source: Path, expected: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def slow(*arguments: Any) -> Any:
        monkeypatch.undo()
        convert(yolo_card(), source, tmp_path / "out", "train", SMALL)
        return plan_shards(*arguments)

    monkeypatch.setattr(conversion, "plan_shards", slow)
    with pytest.raises(ConversionError, match="train: is converted already"):
        convert(yolo_card(), source, tmp_path / "out", "train", SMALL)
    assert files(tmp_path / "out") == expected
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["train"]


def test_finished_shards_are_not_written_again(
    source: Path, expected: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(done: int, total: int) -> None:
        if done > total // 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        convert(yolo_card(), source, tmp_path / "out", "train", SMALL, interrupt)
    read: list[str] = []
    original = shard_writer._read

    def counted(image: AnnotatedImage) -> tuple[bytes, tuple[int, int]]:
        read.append(image.image_id)
        return original(image)

    monkeypatch.setattr(shard_writer, "_read", counted)
    convert(yolo_card(), source, tmp_path / "out", "train", SMALL)
    assert 0 < len(read) < 12
    assert files(tmp_path / "out") == expected


@pytest.mark.parametrize("damage", ["another image", "another box", "a shard", "a record"])
def test_what_has_changed_since_is_written_again(source: Path, tmp_path: Path, damage: str) -> None:
    def stop(done: int, total: int) -> None:
        if done == total:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        convert(yolo_card(), source, tmp_path / "out", "train", SMALL, stop)
    unfinished = tmp_path / "out" / ".train.unfinished"
    match damage:
        case "another image":
            shutil.copyfile(source / "images" / "003.jpg", source / "images" / "000.jpg")
        case "another box":
            (source / "labels" / "000.txt").write_text("1 0.5 0.5 0.25 0.25\n")
        case "a shard":
            (unfinished / "shard-00000.arrow").write_bytes(b"cut")
        case "a record":
            (unfinished / "shard-00000.json").write_text("{")
    convert(yolo_card(), source, tmp_path / "out", "train", SMALL)
    convert(yolo_card(), source, tmp_path / "fresh", "train", SMALL)
    assert files(tmp_path / "out") == files(tmp_path / "fresh")


def test_bad_data_leaves_nothing_to_go_on_from(source: Path, tmp_path: Path) -> None:
    for image in (source / "images").iterdir():
        image.write_bytes(b"no image")
    with pytest.raises(ConversionError, match="24 of 24 images are bad"):
        convert(yolo_card(), source, tmp_path / "out", "train", SMALL)
    assert not (tmp_path / "out").exists()


def test_a_folder_of_other_files_is_refused_before_anything_is_written(source: Path, tmp_path: Path) -> None:
    (tmp_path / "out" / "train").mkdir(parents=True)
    (tmp_path / "out" / "train" / "holiday.jpg").write_bytes(b"mine")
    with pytest.raises(ConfigError, match="holds other files"):
        convert(yolo_card(), source, tmp_path / "out", "train", SMALL)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["train"]


@pytest.fixture
def store(tmp_path: Path) -> Iterator[UPath]:
    """A place where nothing can be renamed."""
    place = UPath(f"memory://{tmp_path.name}")
    yield place
    if place.exists():
        place.fs.rm(place.path, recursive=True)


def test_an_object_store_gets_the_same_files(source: Path, expected: dict[str, bytes], store: UPath) -> None:
    def interrupt(done: int, total: int) -> None:
        if done > total // 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        convert(yolo_card(), source, store, "train", SMALL, interrupt)
    assert not (store / "train" / "manifest.json").exists()
    convert(yolo_card(), source, store, "train", SMALL)
    assert {f"train/{path.name}": path.read_bytes() for path in (store / "train").iterdir()} == expected
    assert len(open_split(store, "train")) == 24


def test_a_shard_in_an_object_store_never_passes_for_one_of_other_boxes(
    source: Path, expected: dict[str, bytes], store: UPath, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A conversion is interrupted, another one after it wrote a shard of the same size; then the first goes on."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        convert(yolo_card(), source, store, "train", SMALL, interrupt)
    label = source / "labels" / "000.txt"
    text = label.read_text()
    label.write_text(text.replace("0.5", "0.4"))
    with monkeypatch.context() as patch:
        patch.setattr(staging, "publish", interrupt)
        with pytest.raises(KeyboardInterrupt):
            convert(yolo_card(), source, store, "train", SMALL)
    label.write_text(text)
    convert(yolo_card(), source, store, "train", SMALL)
    assert {f"train/{path.name}": path.read_bytes() for path in (store / "train").iterdir()} == expected


def test_a_smaller_conversion_leaves_no_shard_of_the_larger_one_in_an_object_store(source: Path, store: UPath) -> None:
    convert(yolo_card(), source, store, "train", SMALL)
    convert(yolo_card(), source, store, "train", ConvertConfig(overwrite=True))
    assert sorted(path.name for path in (store / "train").iterdir()) == ["manifest.json", "shard-00000.arrow"]


@pytest.mark.parametrize("config", [SMALL, SMALL.model_copy(update={"overwrite": True})])
def test_other_files_in_an_object_store_are_neither_mixed_with_nor_deleted(
    source: Path, store: UPath, config: ConvertConfig
) -> None:
    (store / "train" / "originals" / "holiday.jpg").write_bytes(b"mine")
    with pytest.raises(ConfigError, match="holds other files, such as originals"):
        convert(yolo_card(), source, store, "train", config)
    assert (store / "train" / "originals" / "holiday.jpg").read_bytes() == b"mine"
    assert [path.name for path in (store / "train").iterdir()] == ["originals"]


def test_bad_data_costs_an_object_store_nothing_but_what_was_written(source: Path, store: UPath) -> None:
    for image in (source / "images").iterdir():
        image.write_bytes(b"no image")

    def write_beside(done: int, total: int) -> None:
        (store / "train" / "notes.txt").write_bytes(b"mine")

    with pytest.raises(ConversionError, match="24 of 24 images are bad"):
        convert(yolo_card(), source, store, "train", SMALL, write_beside)
    assert [path.name for path in (store / "train").iterdir()] == ["notes.txt"]
