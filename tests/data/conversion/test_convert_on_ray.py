"""Conversion on Ray: the same bytes as in one process, and the same errors."""

from pathlib import Path

import pytest
from made_datasets import good_yolo_dataset, yolo_card

from yolo_dist.data.conversion.convert import ConvertConfig, convert
from yolo_dist.errors import ConfigError, ConversionError


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


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
    with pytest.raises(ConfigError, match=r"500 workers need 500 CPUs, this machine has \d+; lower --workers"):
        convert(yolo_card(), source, tmp_path / "out", "train", ConvertConfig(workers=500))
