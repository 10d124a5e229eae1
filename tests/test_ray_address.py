"""Every process of Ray's runs this first."""

import os
import subprocess
import sys
from types import SimpleNamespace

import psutil
import pytest
import ray

from yolo_dist.ray_address import set_address


@pytest.fixture
def node(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process of the node 10.0.0.3, whose interfaces are a loopback and a network card."""
    for name in ("RAY_ADDRESS", "GLOO_SOCKET_IFNAME"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    monkeypatch.setattr(ray, "get_runtime_context", lambda: SimpleNamespace(gcs_address="10.0.0.1:6379"))
    monkeypatch.setattr(ray.util, "get_node_ip_address", lambda: "10.0.0.3")
    interfaces = {"lo": ["127.0.0.1", "::1"], "enp1s0": ["52:54:00:12:34:56", "10.0.0.3"]}
    addresses = {name: [SimpleNamespace(address=one) for one in has] for name, has in interfaces.items()}
    monkeypatch.setattr(psutil, "net_if_addrs", lambda: addresses)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        pytest.param({}, ("10.0.0.1:6379", "enp1s0"), id="the cluster and the card that connect the process"),
        pytest.param({"RAY_ADDRESS": ""}, ("10.0.0.1:6379", "enp1s0"), id="an address that says nothing"),
        pytest.param({"RAY_ADDRESS": "10.0.0.2:6379"}, ("10.0.0.2:6379", "enp1s0"), id="a cluster somebody has named"),
        pytest.param({"GLOO_SOCKET_IFNAME": "ib0"}, ("10.0.0.1:6379", "ib0"), id="an interface somebody has named"),
    ],
)
def test_a_process_knows_its_cluster_and_its_interface(
    before: dict[str, str], after: tuple[str, str], node: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in before.items():
        monkeypatch.setenv(name, value)
    set_address()
    assert (os.environ["RAY_ADDRESS"], os.environ["GLOO_SOCKET_IFNAME"]) == after


def test_where_no_interface_has_the_nodes_address_gloo_decides(node: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray.util, "get_node_ip_address", lambda: "203.0.113.7")
    set_address()
    assert "GLOO_SOCKET_IFNAME" not in os.environ


@ray.remote
def interface_seen() -> tuple[str | None, str]:
    return os.environ.get("GLOO_SOCKET_IFNAME"), ray.util.get_node_ip_address()


def test_rays_own_processes_are_told(ray_session: None) -> None:
    interface, address = ray.get(interface_seen.remote())
    assert interface is not None
    assert address in [one.address for one in psutil.net_if_addrs()[interface]]


def test_it_costs_a_process_that_needs_no_torch_no_torch() -> None:
    code = "import sys, yolo_dist.ray_address; print(sorted({'torch', 'ray.train'} & set(sys.modules)))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"
