"""Conversion on Ray: the same bytes as in one process, the same errors, and nothing lost with a process."""

import multiprocessing
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import psutil
import pytest
import ray
from made_datasets import good_yolo_dataset, yolo_card
from object_store_server import ObjectStore
from upath import UPath

from yolo_dist.data.conversion.convert import ConvertConfig, convert
from yolo_dist.errors import ConfigError, ConversionError

TWO = ConvertConfig(shard_bytes=5000, workers=2)


def files(folder: Path | UPath) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@contextmanager
def held_up_at(image: Path) -> Iterator[Callable[[], psutil.Process]]:
    """Hold up the first process that reads an image, until the block ends.

    Yields:
        What waits for that process and gives it; from then on the image is as it was for all others.
    """
    content = image.read_bytes()
    image.unlink()
    os.mkfifo(image)
    with ExitStack() as held:

        def reader() -> psutil.Process:
            held.enter_context(image.open("wb"))  # waits
            (process,) = {int(file.parts[2]) for file in Path("/proc").glob("[0-9]*/fd/*") if _is(file, image)}
            whole = image.with_suffix(".whole")
            whole.write_bytes(content)
            whole.replace(image)
            return psutil.Process(process)

        yield reader


def _is(file: Path, image: Path) -> bool:
    """Whether an open file of another process is an image."""
    with suppress(OSError):
        return file.readlink() == image and int(file.parts[2]) != os.getpid()
    return False


@pytest.mark.parametrize("workers", [1, 2])
def test_the_number_of_workers_changes_no_byte(workers: int, tmp_path: Path, ray_session: None) -> None:
    source = good_yolo_dataset(tmp_path / "in", 60)
    (source / "images" / "005.jpg").write_bytes(b"no image")
    seen: list[tuple[int, int]] = []
    here = ConvertConfig(shard_bytes=5000)
    convert(yolo_card(), source, tmp_path / "here", "train", here)
    there = here.model_copy(update={"workers": workers})
    convert(yolo_card(), source, tmp_path / "there", "train", there, lambda done, total: seen.append((done, total)))
    assert files(tmp_path / "here" / "train") == files(tmp_path / "there" / "train")
    assert len(seen) == len(files(tmp_path / "here" / "train")) - 1 > 5
    assert seen[-1] == (60, 60)


def test_bad_data_is_refused_as_in_one_process(tmp_path: Path, ray_session: None) -> None:
    source = good_yolo_dataset(tmp_path / "in", 10)
    for image in (source / "images").iterdir():
        image.write_bytes(b"no image")
    with pytest.raises(ConversionError, match="10 of 10 images are bad"):
        convert(yolo_card(), source, tmp_path / "out", "train", ConvertConfig(workers=2))
    assert not (tmp_path / "out").exists()


def test_an_error_in_a_worker_is_itself(tmp_path: Path, ray_session: None) -> None:
    source = good_yolo_dataset(tmp_path / "in", 10)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / ".train.unfinished").write_text("a file where the folder shall go")
    with pytest.raises((NotADirectoryError, FileExistsError), match=str(tmp_path / "out")):
        convert(yolo_card(), source, tmp_path / "out", "train", ConvertConfig(workers=2))


def test_more_workers_than_cores_are_refused(tmp_path: Path, ray_session: None) -> None:
    source = good_yolo_dataset(tmp_path / "in", 10)
    with pytest.raises(ConfigError, match=r"--workers: 500 workers of 1 CPUs do not fit on 1 nodes .*; ask for less"):
        convert(yolo_card(), source, tmp_path / "out", "train", ConvertConfig(workers=500))


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return good_yolo_dataset(tmp_path / "in", 60)


@pytest.fixture
def expected(source: Path, tmp_path: Path) -> dict[str, bytes]:
    """What a conversion leaves that nothing disturbs."""
    convert(yolo_card(), source, tmp_path / "undisturbed", "train", ConvertConfig(shard_bytes=5000))
    return files(tmp_path / "undisturbed" / "train")


def test_a_worker_that_is_killed_costs_nothing(
    source: Path, expected: dict[str, bytes], tmp_path: Path, ray_session: None
) -> None:
    with held_up_at(source / "images" / "059.jpg") as reader, ThreadPoolExecutor(1) as thread:
        conversion = thread.submit(convert, yolo_card(), source, tmp_path / "out", "train", TWO)
        reader().kill()
        conversion.result()
    assert files(tmp_path / "out" / "train") == expected
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["train"]


def drive(source: Path, url: str) -> None:
    convert(yolo_card(), source, url, "train", TWO)


def test_after_a_driver_that_is_killed_another_one_goes_on(
    source: Path, expected: dict[str, bytes], s3: ObjectStore, ray_session: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", ray.get_runtime_context().gcs_address)
    url = f"{s3.url}/{source.parent.name}"
    driver = multiprocessing.get_context("spawn").Process(target=drive, args=(source, url))
    with held_up_at(source / "images" / "059.jpg") as reader:
        driver.start()
        worker = reader()
        driver.kill()
        driver.join()
        worker.wait(timeout=30)  # Ray ends what a driver that is lost has started
    assert not UPath(url, "train", "manifest.json").exists()
    convert(yolo_card(), source, url, "train", TWO)
    assert files(UPath(url, "train")) == expected
    assert [path.name for path in UPath(url).iterdir()] == ["train"]


def open_files(process: psutil.Process) -> list[Path]:
    """None once it has ended, whether or not anybody took note of that."""
    return list(Path(f"/proc/{process.pid}/fd").glob("*"))


def test_an_interrupted_conversion_ends_its_tasks_before_it_says_so(
    source: Path, tmp_path: Path, ray_session: None
) -> None:
    workers: list[psutil.Process] = []

    def interrupt(done: int, total: int) -> None:
        workers.append(reader())
        assert open_files(workers[0])
        raise KeyboardInterrupt

    with held_up_at(source / "images" / "000.jpg") as reader:
        with pytest.raises(KeyboardInterrupt):
            convert(yolo_card(), source, tmp_path / "out", "train", TWO, interrupt)
        assert not open_files(workers[0])
