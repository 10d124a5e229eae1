"""What a node of a cluster says about itself; travels to it by value, so that it works where this package is missing.

For that it imports only what Python itself has, and all else inside of its functions.
"""

import os
import platform
import shutil
import socket
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

CGROUP = Path("/sys/fs/cgroup")
"""Where a container sees its own limits."""


def look(packages: list[str], storage: str | None) -> dict[str, Any]:
    """The state of the node that this runs on.

    Args:
        packages: those whose versions are wanted.
        storage: URL or path that the node should be able to write.

    Returns:
        `host`; `versions` (name → version, None where it is missing); `memory` and `disk`, free bytes; `gpus` that its
        system has; `cuda` of its torch, None for a CPU build; `storage`, what went wrong there, None for nothing.
    """
    return {
        "host": socket.gethostname(),
        "versions": {"Python": platform.python_version()} | {name: _version(name) for name in packages},
        "memory": available_memory(),
        "disk": shutil.disk_usage(Path.cwd()).free,
        "gpus": len([*Path("/proc/driver/nvidia/gpus").glob("*")]),
        "cuda": _cuda(),
        "storage": None if storage is None else problem_of_writing(storage),
    }


def _version(package: str) -> str | None:
    try:
        return version(package).partition("+")[0]
    except PackageNotFoundError:
        return None


def available_memory() -> int:
    """Bytes that programs can still get: the least of the machine's and of the container's, if it has a limit."""
    import psutil

    free = int(psutil.virtual_memory().available)
    try:
        limit, used, statistics = ((CGROUP / f"memory.{name}").read_text() for name in ("max", "current", "stat"))
        # files that were read count as used, and make room for programs
        cached = dict(line.split() for line in statistics.splitlines())["inactive_file"]
        return max(0, min(free, int(limit) - int(used) + int(cached)))
    except (OSError, ValueError, KeyError):
        return free


def _cuda() -> str | None:
    try:
        import torch
    except ImportError:
        return None
    return torch.version.cuda


def problem_of_writing(storage: str) -> str | None:
    """What goes wrong when a small file, of a name that nobody else has, is written, read and deleted; None if nothing
    does. Folders that are not there yet are not made: the file goes into the one that they would be made in."""
    try:
        from upath import UPath

        folder = UPath(storage)
        if folder.protocol in ("", "file", "local"):
            wanted = Path(folder.path).expanduser().absolute()
            folder = UPath(next(one for one in (wanted, *wanted.parents) if one.exists()))
        file = folder / f".yolo-dist-doctor-{socket.gethostname()}-{os.getpid()}-{time.time_ns()}"
        file.write_bytes(b"written by yolo-dist doctor")
        try:
            return (
                None if file.read_bytes() == b"written by yolo-dist doctor" else "what is read is not what was written"
            )
        finally:
            file.unlink()
    except Exception as error:
        return f"{type(error).__name__}: {' '.join(str(error).split())}"


def name_interface() -> None:
    """Tell gloo which network interface has the node's address, unless somebody has told it.

    It would take the one that the host name resolves to, which on many systems is the loopback: workers of other
    machines would never find it.
    """
    import psutil
    import ray.util

    address = ray.util.get_node_ip_address()
    for name, has in psutil.net_if_addrs().items():
        if any(one.address == address for one in has):
            os.environ.setdefault("GLOO_SOCKET_IFNAME", name)


class AllReducer:
    """One of two processes that add up numbers as training's workers do."""

    def place(self) -> tuple[str, int]:
        """Address of this node, and a port that is free on it."""
        import ray.util

        with socket.create_server(("", 0)) as free:
            return ray.util.get_node_ip_address(), free.getsockname()[1]

    def seconds(self, rank: int, place: tuple[str, int], floats: int, times: int) -> float:
        """Shortest time of an all-reduce of so many float32 by gloo, of several.

        Raises:
            RuntimeError: the other process is not reached.
        """
        import datetime

        import torch

        name_interface()
        address, port = place
        torch.distributed.init_process_group(
            "gloo",
            init_method=f"tcp://{address}:{port}",
            rank=rank,
            world_size=2,
            timeout=datetime.timedelta(seconds=30),
        )
        values = torch.ones(floats)
        taken = []
        for _ in range(times):
            torch.distributed.barrier()
            began = time.monotonic()
            torch.distributed.all_reduce(values)
            taken.append(time.monotonic() - began)
        torch.distributed.destroy_process_group()
        return min(taken)
