"""Several machines on this one: each has an address, processes, a host name and temporary files of its own.

They are network namespaces on a bridge which itself is in a namespace, so that nothing of the real network changes, and
all of it is gone when the process that made it ends. Needs Linux, root, `ip` and `unshare`.
"""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

NETWORK = "10.77.0"
INSIDE = "YOLO_DIST_DRILL_INSIDE"


def why_not() -> str | None:
    """Why there can be no such machines here; None where there can."""
    if not sys.platform.startswith("linux") or os.geteuid() != 0:
        return "needs Linux and root"
    missing = [name for name in ("ip", "unshare") if shutil.which(name) is None]
    if missing:
        return f"needs {' and '.join(missing)}"
    tried = subprocess.run(["unshare", "--net", "--mount", "true"], capture_output=True)
    return None if tried.returncode == 0 else "may not make namespaces"


def go_inside() -> None:
    """Replace this process by itself in namespaces of its own, which have no network but a bridge."""
    if INSIDE in os.environ:
        return
    os.environ[INSIDE] = "1"
    setup = (
        "mount -t tmpfs run /run && mkdir /run/netns && ip link set lo up && ip link add bridge type bridge "
        f'&& ip addr add {NETWORK}.254/24 dev bridge && ip link set bridge up && exec "$@"'
    )
    command = ["unshare", "--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]
    os.execvp("unshare", [*command, "bash", "-c", setup, "bash", sys.executable, *sys.argv])


@dataclass
class Machine:
    """A machine of the drill.

    Attributes:
        name: host name.
        number: last part of its address.
        folder: where its files are that others may read.
        environment: variables of all its processes.
        cache_kibibytes: size of the disk at `cache`.
    """

    name: str
    number: int
    folder: Path
    environment: dict[str, str] = field(default_factory=dict)
    cache_kibibytes: int = 1 << 19
    processes: list["subprocess.Popen[bytes]"] = field(default_factory=list)

    @property
    def address(self) -> str:
        """Its address on the bridge."""
        return f"{NETWORK}.{self.number}"

    @property
    def cache(self) -> Path:
        """Where a disk for the shard cache is mounted."""
        return self.folder / "cache"

    def connect(self) -> None:
        """Give it its address."""
        ours = f"to-{self.name}"
        run("ip", "netns", "add", self.name)
        run("ip", "link", "add", ours, "type", "veth", "peer", "name", "eth0", "netns", self.name)
        run("ip", "link", "set", ours, "master", "bridge", "up")
        for words in ("addr add {}/24 dev eth0", "link set eth0 up", "link set lo up"):
            run("ip", "-n", self.name, *words.format(self.address).split())

    def disconnect(self) -> None:
        """Take its address away for good."""
        run("ip", "link", "del", f"to-{self.name}")
        run("ip", "netns", "del", self.name)

    def cut(self) -> None:
        """Pull its network cable."""
        run("ip", "link", "set", f"to-{self.name}", "down")

    def mend(self) -> None:
        """Plug its cable in again."""
        run("ip", "link", "set", f"to-{self.name}", "up")

    def command(self, words: Sequence[str]) -> list[str]:
        """What runs `words` on it."""
        setup = (
            f"hostname {self.name}; mkdir -p {self.cache} /tmp/ray; mount -t tmpfs shm /dev/shm; "
            f"mount -t tmpfs -o size=512m ray /tmp/ray; "
            f"printf '127.0.0.1 localhost\\n127.0.1.1 {self.name}\\n' > {self.folder}/hosts; "  # as Debian has it
            f"mount --bind {self.folder}/hosts /etc/hosts; "
            f'mount -t tmpfs -o size={self.cache_kibibytes}k cache {self.cache}; exec "$@"'
        )
        entering = ["ip", "netns", "exec", self.name, "unshare", "--pid", "--mount", "--uts", "--fork", "--kill-child"]
        return [*entering, "--mount-proc", "bash", "-c", setup, "bash", *words]

    def start(self, *words: str) -> "subprocess.Popen[bytes]":
        """Start a process on it; its output goes to a file."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / "output.log").open("ab") as log:
            environment = os.environ | self.environment
            process = subprocess.Popen(self.command(words), stdout=log, stderr=log, env=environment)
        self.processes.append(process)
        return process

    def ask(self, *words: str, timeout: float = 300) -> "subprocess.CompletedProcess[str]":
        """Run a command on it and wait for its end."""
        return subprocess.run(
            self.command(words), capture_output=True, text=True, env=os.environ | self.environment, timeout=timeout
        )

    def lose(self) -> None:
        """Take its power away."""
        for process in self.processes:
            process.send_signal(signal.SIGKILL)
            process.wait()
        self.processes.clear()


def run(*words: str) -> None:
    """Run a command that must succeed."""
    subprocess.run(words, check=True, capture_output=True, text=True)
