"""What travels to a cluster."""

import subprocess
import zipfile
from pathlib import Path

import pytest

from yolo_dist.errors import ConfigError
from yolo_dist.submission.packing import pack


def write(folder: Path, *names: str, content: str = "x") -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content)


def packed(folder: Path) -> list[str]:
    return [file.as_posix() for file in pack(folder).files]


def test_data_runs_and_caches_stay_here_and_code_of_the_same_name_travels(tmp_path: Path) -> None:
    write(tmp_path, "launch/a.yaml", "yolo_dist/data/card.py", "wheels/runs/a.py")
    write(tmp_path, "data/bccd/train/0.arrow", "runs/bccd/model.weights", ".git/config", ".venv-streaming/bin/python")
    write(tmp_path, "yolo_dist/__pycache__/a.pyc", ".mypy_cache/x", "wandb/run", "shards/0.arrow", ".env")
    assert packed(tmp_path) == ["launch/a.yaml", "wheels/runs/a.py", "yolo_dist/data/card.py"]


@pytest.mark.parametrize("ignore_file", [".gitignore", ".rayignore"])
def test_ignore_files_hold_where_they_lie_and_below(ignore_file: str, tmp_path: Path) -> None:
    write(tmp_path, ignore_file, content="*.log\n!kept.log\n/top\n")
    write(tmp_path, f"a/{ignore_file}", content="secret*\n")
    write(tmp_path, "x.log", "kept.log", "top/x", "b/top/x", "b/secret", "a/secret.txt", "a/b/secret.txt", "a/c")
    files = [name for name in packed(tmp_path) if ignore_file not in name]
    assert files == ["a/c", "b/secret", "b/top/x", "kept.log"]


def test_git_ignores_the_same_files(tmp_path: Path) -> None:
    write(tmp_path, ".gitignore", content="*.bin\nbuild/\n/only-here\ndeep/**/x\n!keep.bin\n\\#odd\n")
    write(tmp_path, "sub/.gitignore", content="local\n/rooted\n")
    write(tmp_path, "a.bin", "keep.bin", "sub/b.bin", "build/x", "sub/build/x", "only-here", "sub/only-here", "#odd")
    write(tmp_path, "deep/a/b/x", "deep/x", "sub/local", "sub/a/local", "sub/rooted", "sub/a/rooted", "local")
    subprocess.run(["git", "init", "--quiet", tmp_path], check=True)
    command = ["git", "-C", str(tmp_path), "ls-files", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    assert packed(tmp_path) == sorted(listed, key=Path)


def test_links_to_folders_are_not_followed(tmp_path: Path) -> None:
    write(tmp_path / "outside", "image.jpg")
    write(tmp_path / "here", "a")
    (tmp_path / "here" / "images").symlink_to(tmp_path / "outside")
    (tmp_path / "here" / "around").symlink_to(tmp_path / "here")
    assert packed(tmp_path / "here") == ["a"]


def test_too_much_is_refused_with_the_largest_files_named(tmp_path: Path) -> None:
    write(tmp_path, "small", content="x")
    write(tmp_path, *(f"big-{number}" for number in range(5)), content="x" * 2**20)
    write(tmp_path, "deep/biggest", content="x" * 3 * 2**20)
    with pytest.raises(ConfigError) as error:
        pack(tmp_path, limit=8 * 2**20 - 1)
    assert str(error.value) == (
        f"{tmp_path}: 8.0 MiB would travel to the cluster, 8.0 MiB may; the largest files are deep/biggest 3.0 MiB, "
        "big-0 1.0 MiB, big-1 1.0 MiB, big-2 1.0 MiB, big-3 1.0 MiB; name in .rayignore what a job does not need, "
        "or put it into the storage"
    )


def test_an_archive_holds_the_files_and_is_the_same_every_time(tmp_path: Path) -> None:
    write(tmp_path / "here", "a", "b/c", content="content")
    (tmp_path / "here" / "a").chmod(0o755)
    package = pack(tmp_path / "here")
    package.write(tmp_path / "one.zip")
    (tmp_path / "here" / "a").touch()
    package.write(tmp_path / "two.zip")
    assert (tmp_path / "one.zip").read_bytes() == (tmp_path / "two.zip").read_bytes()
    with zipfile.ZipFile(tmp_path / "one.zip") as archive:
        assert archive.namelist() == ["a", "b/c"]
        assert archive.read("b/c") == b"content"
        assert archive.getinfo("a").external_attr >> 16 & 0o777 == 0o755
