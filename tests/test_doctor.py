"""The doctor: looks, changes nothing, and says what to do where something is missing."""

import os
import shutil
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from object_store_server import ObjectStore

from yolo_dist import doctor
from yolo_dist.doctor import Finding, examine
from yolo_dist.storage import location


def finding(what: str) -> Finding:
    (found,) = [found for found in examine() if found.what == what]
    return found


def test_everything_is_looked_at_once() -> None:
    names = [found.what for found in examine()]
    assert names == ["packages", "processor", "memory", "disk", "shard cache", "GPU", "Ray", "storage", "tracking"]


def test_what_is_not_ok_comes_with_a_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "ENOUGH_MEMORY", 2**60)
    monkeypatch.setattr(doctor, "ENOUGH_DISK", 2**60)
    monkeypatch.setattr(doctor, "PACKAGES", ("torch", "no-such-package"))
    bad = {found.what: found.remedy for found in examine() if not found.ok}
    assert sorted(bad) == ["disk", "memory", "packages"]
    assert bad["packages"] == "pip install -c constraints.txt no-such-package"
    assert "cluster.workers" in bad["memory"]
    assert "storage:" in bad["disk"]


def test_packages_are_listed_with_their_versions() -> None:
    assert f"torch {torch.__version__.partition('+')[0]}" in finding("packages").found


def test_a_package_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def version(name: str) -> str:
        if name == "wandb":
            raise PackageNotFoundError(name)
        return "1.0"

    monkeypatch.setattr(doctor, "version", version)
    found = finding("packages")
    assert not found.ok
    assert found.remedy.endswith(" wandb")


def test_memory_is_what_the_system_has() -> None:
    total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    assert f"{total / 2**30:.1f} GiB" in finding("memory").found


def test_memory_that_a_container_may_not_take_is_not_free(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "available_memory", lambda: 3 * 2**29)
    assert finding("memory").found.startswith("1.5 of ")
    assert not finding("memory").ok


@pytest.mark.parametrize(("fast", "word"), [(True, "bfloat16 instructions"), (False, "no bfloat16")])
def test_the_processor_says_whether_it_has_bfloat16(fast: bool, word: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "bfloat16_is_fast", lambda _device: fast)
    assert word in finding("processor").found


def test_the_disk_is_that_of_the_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Usage(NamedTuple):
        free: int

    seen = []

    def disk_usage(path: Path) -> Usage:
        seen.append(path)
        return Usage(free=3 * 2**30)

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", disk_usage)
    assert finding("disk") == Finding(
        "disk", "3.0 GiB free here", False, "give runs and shards another place: storage: and shards: in the recipe"
    )
    assert seen[0] == tmp_path


@pytest.mark.parametrize(
    ("what", "environment", "found"),
    [
        ("Ray", {}, "starts on this machine"),
        ("Ray", {"RAY_ADDRESS": "local"}, "starts on this machine"),
        ("Ray", {"RAY_ADDRESS": ""}, "starts on this machine"),
        ("Ray", {"RAY_ADDRESS": "10.0.0.1:6379"}, "joins the cluster at 10.0.0.1:6379"),
        ("storage", {}, "local paths; no S3 keys in the environment"),
        ("storage", {"AWS_ACCESS_KEY_ID": "k", "AWS_SECRET_ACCESS_KEY": "s"}, "S3 keys set, endpoint AWS"),
        ("tracking", {}, "no Weights & Biases key"),
        ("tracking", {"WANDB_API_KEY": "very-secret"}, "Weights & Biases key set"),
    ],
)
def test_the_environment_is_told_without_its_secrets(
    what: str, environment: dict[str, str], found: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("RAY_ADDRESS", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_ENDPOINT_URL", "WANDB_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert finding(what).found == found
    assert "very-secret" not in str(examine())


def test_half_a_pair_of_keys_names_the_other_half(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "k")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY", raising=False)
    assert "set AWS_SECRET_ACCESS_KEY (" in finding("storage").remedy


def test_a_cache_of_no_size_is_one_finding_among_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("YOLO_DIST_CACHE_GIB", "abc")
    assert len(examine()) == 9
    found = finding("shard cache")
    assert (found.found, found.ok) == ("YOLO_DIST_CACHE_GIB is 'abc', not a number of gibibytes", False)
    assert found.remedy


def test_a_storage_is_written_read_and_cleaned_again(tmp_path: Path, s3: ObjectStore) -> None:
    for place in (str(tmp_path / "runs"), f"{s3.url}/runs"):
        (found,) = [found for found in examine(place) if found.what == "storage"]
        assert found == Finding("storage", f"this machine writes and reads {place}")
        assert [*location(place).glob(".yolo-dist-doctor*")] == []


@pytest.mark.parametrize(
    ("storage", "found", "remedy"),
    [
        ("nosuch://bucket/runs", "nosuch://bucket/runs: ", "give a path, or a URL such as s3://"),
        ("file", "file: NotADirectoryError", "give another path"),
    ],
)
def test_a_storage_that_cannot_be_written_comes_with_a_remedy(
    storage: str, found: str, remedy: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    (seen,) = [seen for seen in examine(storage) if seen.what == "storage"]
    assert not seen.ok
    assert found in seen.found
    assert seen.remedy.startswith(remedy)


def test_the_shard_cache_is_measured_against_its_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("YOLO_DIST_CACHE", str(tmp_path / "shards"))
    monkeypatch.setenv("YOLO_DIST_CACHE_GIB", "0.125")
    assert finding("shard cache").found == f"{tmp_path}/shards, 0.0 of 0.125 GiB used"
    assert finding("shard cache").ok
    monkeypatch.setenv("YOLO_DIST_CACHE_GIB", "1e9")
    assert "set YOLO_DIST_CACHE_GIB to less" in finding("shard cache").remedy
