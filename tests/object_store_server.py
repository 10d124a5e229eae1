"""A real S3 server (SeaweedFS) for tests and benchmarks, on free ports of the loopback interface."""

import json
import os
import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from free_ports import free_ports

KEY, SECRET, REGION, BUCKET = "tests", "not-a-secret", "us-east-1", "bucket"
SERVICES = ("master", "volume", "filer", "s3")
STARTS_WITHIN = 60


@dataclass(frozen=True)
class ObjectStore:
    """A running server.

    Attributes:
        endpoint: its URL.
        url: of an empty bucket.
    """

    endpoint: str
    url: str = f"s3://{BUCKET}"

    def environment(self, endpoint: str | None = None) -> dict[str, str]:
        """The AWS variables with which programs find it, or what stands before it at another endpoint."""
        return {
            "AWS_ENDPOINT_URL": endpoint or self.endpoint,
            "AWS_ACCESS_KEY_ID": KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_REGION": REGION,
            "AWS_EC2_METADATA_DISABLED": "true",
        }


def executable() -> str | None:
    """The server's program, beside the interpreter or on the path."""
    return shutil.which("weed", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}")


@contextmanager
def object_store(folder: Path) -> Iterator[ObjectStore]:
    """A server with its data in a folder, for as long as the block lasts."""
    program = executable()
    assert program is not None
    ports = iter(free_ports(2 * len(SERVICES)))
    options = [f"-{service}.port{kind}={next(ports)}" for service in SERVICES for kind in ("", ".grpc")]
    port = int(next(option for option in options if option.startswith("-s3.port=")).partition("=")[2])
    identity = {"name": KEY, "credentials": [{"accessKey": KEY, "secretKey": SECRET}]}
    actions = ["Admin", "Read", "Write", "List", "Tagging"]
    (folder / "s3.json").write_text(json.dumps({"identities": [{**identity, "actions": actions}]}))
    (folder / "data").mkdir()
    command = [
        *(program, "mini", f"-dir={folder}/data", f"-s3.config={folder}/s3.json", "-admin.ui=false"),
        *("-webdav=false", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-s3.port.iceberg=0", *options),
    ]
    with (folder / "server.log").open("wb") as log, subprocess.Popen(command, stdout=log, stderr=log) as server:
        try:
            store = ObjectStore(f"http://127.0.0.1:{port}")
            _wait_for(store, server)
            yield store
        finally:
            server.terminate()


def _wait_for(store: ObjectStore, server: "subprocess.Popen[bytes]") -> None:
    """Until it has a bucket."""
    import s3fs

    options = {"key": KEY, "secret": SECRET, "endpoint_url": store.endpoint, "client_kwargs": {"region_name": REGION}}
    give_up = time.monotonic() + STARTS_WITHIN
    while True:
        assert server.poll() is None, "the server ended"
        try:
            urllib.request.urlopen(store.endpoint, timeout=5)
        except urllib.error.HTTPError:  # it answers: without a key it has nothing to say
            break
        except OSError:
            assert time.monotonic() < give_up, "the server does not answer"
    files = s3fs.S3FileSystem(**options, skip_instance_cache=True)
    while not files.exists(BUCKET):
        try:
            files.mkdir(BUCKET)
        except OSError:
            assert time.monotonic() < give_up, "the server makes no bucket"
