"""Which Ray cluster a process belongs to, and by which way it reaches the others; imports next to nothing, as every
process that Ray starts runs it first."""

import os

import psutil
import ray


def set_address() -> None:
    """Tell Ray's helpers in a worker process which cluster is theirs: they search, and stop at a second one.

    And tell gloo which network interface has the node's address. It would take the one that the host name resolves to,
    which on many systems is the loopback: workers of other machines would never find it.
    """
    os.environ.setdefault("RAY_ADDRESS", ray.get_runtime_context().gcs_address)
    if interface := interface_of(ray.util.get_node_ip_address()):
        os.environ.setdefault("GLOO_SOCKET_IFNAME", interface)


def interface_of(address: str) -> str | None:
    """Name of this machine's network interface with an IP address, such as eth0; None where none has it."""
    interfaces = psutil.net_if_addrs().items()
    return next((name for name, has in interfaces if any(one.address == address for one in has)), None)
