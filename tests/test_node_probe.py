"""What a node says about itself."""

import os
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
import ray
import torch

from yolo_dist import node_probe

MIB = 2**20


@pytest.mark.parametrize(
    ("limit", "used", "available"),
    [
        pytest.param("max", 300 * MIB, 900 * MIB, id="no limit but the machine's"),
        pytest.param(f"{500 * MIB}", 300 * MIB, 400 * MIB, id="the rest of the limit, and files"),
        pytest.param(f"{5000 * MIB}", 300 * MIB, 900 * MIB, id="a limit that the machine cannot give"),
        pytest.param(f"{50 * MIB}", 300 * MIB, 0, id="a limit that was lowered"),
    ],
)
def test_memory_of_a_container_is_what_its_limit_leaves_with_files_that_make_room(
    limit: str, used: int, available: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "memory.max").write_text(f"{limit}\n")
    (tmp_path / "memory.current").write_text(f"{used}\n")
    (tmp_path / "memory.stat").write_text(f"anon {used - 200 * MIB}\nfile {200 * MIB}\ninactive_file {200 * MIB}\n")
    monkeypatch.setattr(node_probe, "CGROUP", tmp_path)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=900 * MIB))
    assert node_probe.available_memory() == available


def test_a_storage_is_tried_without_making_its_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "home").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    for storage in ("~/runs", "not/there/yet", "home"):
        assert node_probe.problem_of_writing(storage) is None
    assert [path.name for path in tmp_path.rglob("*")] == ["home"]


def test_the_all_reduce_takes_the_interface_that_training_would_take(monkeypatch: pytest.MonkeyPatch) -> None:
    interfaces = {"lo": [SimpleNamespace(address="127.0.1.1")], "enp1s0": [SimpleNamespace(address="10.0.0.3")]}
    monkeypatch.setattr(psutil, "net_if_addrs", lambda: interfaces)
    monkeypatch.setattr(ray.util, "get_node_ip_address", lambda: "10.0.0.3")
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "")
    monkeypatch.delenv("GLOO_SOCKET_IFNAME")

    def meet(*_: object, **__: object) -> None:
        raise RuntimeError(f"met over {os.environ.get('GLOO_SOCKET_IFNAME')}")

    monkeypatch.setattr(torch.distributed, "init_process_group", meet)
    with pytest.raises(RuntimeError, match="met over enp1s0"):
        node_probe.AllReducer().seconds(0, ("10.0.0.3", 29500), floats=1, times=1)
