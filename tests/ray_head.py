"""A Ray head of its own, with a job server that asks for a token, on free ports of the loopback interface."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
from free_ports import free_ports

TOKEN = "0123456789abcdef0123456789abcdef"
ADDRESS = "127.0.0.1"


@dataclass(frozen=True)
class RayHead:
    """A running head.

    Attributes:
        address: of the cluster, for RAY_ADDRESS.
        jobs: URL of its job server.
    """

    address: str
    jobs: str

    def environment(self, token: str = TOKEN) -> dict[str, str]:
        """The variables with which programs prove who they are."""
        return {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": token}


@contextmanager
def ray_head(folder: Path, cpus: int = 2) -> Iterator[RayHead]:
    """A head with its files in a folder, for as long as the block lasts."""
    port, dashboard, *others = free_ports(7)
    names = ("ray-client-server", "dashboard-agent-listen", "dashboard-agent-grpc", "metrics-export", "node-manager")
    options = [f"--{name}-port={other}" for name, other in zip(names, others, strict=True)]
    head = RayHead(f"{ADDRESS}:{port}", f"http://{ADDRESS}:{dashboard}")
    command = [
        *(sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block", f"--node-ip-address={ADDRESS}"),
        *(f"--port={port}", "--dashboard-host=127.0.0.1", f"--dashboard-port={dashboard}", f"--num-cpus={cpus}"),
        *("--num-gpus=0", f"--temp-dir={folder}", "--object-store-memory=100000000", "--disable-usage-stats", *options),
    ]
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {name: value for name, value in os.environ.items() if name not in ("RAY_ADDRESS", "PYTHONPATH")}
    environment |= head.environment() | {"PATH": path, "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.2"}
    with (folder / "head.log").open("w+") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env=environment)
        try:
            _wait_for(head, process, folder / "head.log")
            yield head
        finally:
            for child in psutil.Process(process.pid).children(recursive=True):
                child.kill()  # asked to end, Ray takes half a minute
            process.kill()
            process.wait()


def _wait_for(head: RayHead, process: "subprocess.Popen[str] | subprocess.Popen[bytes]", log: Path) -> None:
    """Until its job server takes jobs; asked by its own client, so that nothing is guessed about what it answers."""
    code = (
        "import sys, time\n"
        "from ray.job_submission import JobSubmissionClient\n"
        "for attempt in range(120):\n"
        "    try:\n"
        "        sys.exit(print(JobSubmissionClient(sys.argv[1]).list_jobs()))\n"
        "    except (ConnectionError, RuntimeError):\n"
        "        time.sleep(0.5)\n"
        "sys.exit(1)\n"
    )
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"} | head.environment()
    asked = subprocess.run([sys.executable, "-c", code, head.jobs], env=environment, capture_output=True, text=True)
    assert process.poll() is None, log.read_text()
    assert asked.returncode == 0, log.read_text() + asked.stderr
