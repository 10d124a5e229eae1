"""A cluster of such machines: a head, workers, an object store, and a laptop that submits jobs."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from machines import Machine

TOKEN = "0123456789abcdef0123456789abcdef"
KEY, SECRET, BUCKET = "drill", "not-a-secret", "bucket"
ROOT = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent
BETWEEN_LOOKS = 2.0
"""Seconds; each look is a command, which takes processor time from those that are looked at."""
GIVE_UP = 400.0
"""Seconds until something must have happened."""


class DrillCluster:
    """The machines, started one by one; `ray start` comes back on a machine that lives, as a supervisor does it."""

    def __init__(self, folder: Path, workers: int = 2) -> None:
        self.folder = folder
        names = ["store", "head", "laptop", *(f"worker{number}" for number in range(1, workers + 1))]
        self.machines = {name: Machine(name, number, folder / name) for number, name in enumerate(names, start=1)}
        self.store, self.head, self.laptop = (self.machines[name] for name in names[:3])
        self.workers = [self.machines[name] for name in names[3:]]
        environment = {
            "AWS_ENDPOINT_URL": f"http://{self.store.address}:8333",
            "AWS_ACCESS_KEY_ID": KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": TOKEN,
            "RAY_USAGE_STATS_ENABLED": "0",
            "OMP_NUM_THREADS": "1",
            "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT),
        }
        for machine in self.machines.values():
            machine.environment = environment | {"YOLO_DIST_CACHE": str(machine.cache)}
            machine.connect()
        self.start_store()
        self.ray(self.head, "--head", "--port=6379", f"--dashboard-host={self.head.address}", "--num-cpus=0")
        self.until(
            lambda: self.laptop.ask("yolo-dist", "jobs", "list", *self.at_head).returncode == 0, "the job server"
        )
        for worker in self.workers:
            self.start_worker(worker)

    @property
    def at_head(self) -> tuple[str, str]:
        """Options that name the job server."""
        return "--address", f"http://{self.head.address}:8265"

    def start_store(self) -> None:
        """Start the object store; what it had is still there."""
        self.store.folder.mkdir(parents=True, exist_ok=True)
        identity = {"name": KEY, "credentials": [{"accessKey": KEY, "secretKey": SECRET}]}
        actions = ["Admin", "Read", "Write", "List", "Tagging"]
        config = self.store.folder / "s3.json"
        config.write_text(json.dumps({"identities": [{**identity, "actions": actions}]}))
        (self.store.folder / "data").mkdir(exist_ok=True)
        words = ["mini", f"-dir={self.store.folder}/data", f"-s3.config={config}", "-s3.port=8333", "-admin.ui=false"]
        where = [f"-ip={self.store.address}", f"-ip.bind={self.store.address}", "-webdav=false", "-s3.port.iceberg=0"]
        self.store.start(str(BIN / "weed"), *words, *where, f"-bucket={BUCKET}")

    def start_worker(self, machine: Machine) -> None:
        """Let a machine join with one core."""
        self.ray(machine, f"--address={self.head.address}:6379", "--num-cpus=1")

    def ray(self, machine: Machine, *options: str) -> None:
        """Start Ray on a machine, again whenever it ends."""
        words = f"--block --node-ip-address={machine.address} --object-store-memory=80000000 {' '.join(options)}"
        machine.start("bash", "-c", f"while true; do ray start {words}; sleep 1; done")

    def submit(self, recipe: Path, *overrides: str) -> str:
        """Submit a recipe from the laptop; the job's id."""
        return self.submit_command(recipe.parent, recipe.name, *overrides)

    def submit_command(self, project: Path, *words: str) -> str:
        """Submit a command from a working directory of the laptop; the job's id."""
        asked = self.at_work(project, "submit", "--no-requirements", "--no-pass-on", *self.at_head, "--", *words)
        assert asked.returncode == 0, asked.stderr
        return asked.stdout.strip()

    def at_work(self, project: Path, *words: str) -> "subprocess.CompletedProcess[str]":
        """Run yolo-dist in a working directory of the laptop."""
        return self.laptop.ask("bash", "-c", f'cd "{project}" && exec yolo-dist "$@"', "bash", *words)

    def bring_shards(self, project: Path) -> None:
        """Convert into the object store, from the laptop."""
        for split in ("train", "val"):
            words = ("convert", "tiny.yaml", "-", f"s3://{BUCKET}/tiny", "--split", split)
            self.until(lambda: self.at_work(project, *words).returncode == 0, "shards")  # noqa: B023

    def job(self, id: str) -> dict[str, Any]:
        """What the job server says about a job."""
        listed = self.laptop.ask("yolo-dist", "jobs", "list", "--json", *self.at_head)
        assert listed.returncode == 0, listed.stderr
        return next(job for job in json.loads(listed.stdout) if job["id"] == id)

    def logs(self, id: str) -> str:
        """What a job has printed; nothing where the head does not answer."""
        return self.laptop.ask("yolo-dist", "jobs", "logs", id, *self.at_head).stdout

    def until_printed(self, id: str, text: str) -> None:
        """Wait until a job prints something."""
        self.until(lambda: text in self.logs(id), f"{text!r} of {id}", lambda: self.logs(id)[-3000:])

    def until_over(self, id: str) -> dict[str, Any]:
        """Wait for the end of a job; what the server says then."""
        self.until(lambda: self.job(id)["ended"] is not None, f"the end of {id}", lambda: self.logs(id)[-3000:])
        return self.job(id)

    def until(self, true: Callable[[], bool], what: str, detail: Callable[[], str] = str) -> None:
        """Look again and again."""
        give_up = time.monotonic() + GIVE_UP
        while True:
            try:
                if true():
                    return
            except AssertionError:
                pass  # the head may be away
            assert time.monotonic() < give_up, f"waited in vain for {what}: {detail()}"
            time.sleep(BETWEEN_LOOKS)

    def end(self) -> None:
        """Take all machines away."""
        for machine in self.machines.values():
            machine.lose()
            machine.disconnect()
