"""What a node says about itself."""

import os
from types import SimpleNamespace

import psutil
import pytest
import ray
import torch

from yolo_dist import node_probe


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
