"""How many requests an object store gets from what every node or run does, counted by a proxy before an S3 server."""

import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from yolo_dist.bundle import Bundle, open_bundle
from yolo_dist.data.cache import ShardCache
from yolo_dist.data.card import find_card
from yolo_dist.data.conversion.convert import convert
from yolo_dist.data.manifest import ShardRecord
from yolo_dist.data.shards import open_split
from yolo_dist.lease import Lease, _Candidate, hold
from yolo_dist.storage import location, sha256
from yolo_dist.train.checkpoint import Checkpoints, State

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
from faulty_proxy import faulty_proxy
from object_store_server import object_store

SHARD_BYTES = 64 << 20


def sign_of_life(lease: Lease) -> None:
    """What the holder of a run does every ten seconds."""
    lease.require()
    lease._write(signs=1)


def requests(bundle: Bundle, state: State) -> dict[str, Any]:
    """Requests of each action, and seconds of a checkpoint, with the server's data on this machine's disk."""
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        (root / "server").mkdir()
        with object_store(root / "server") as store, faulty_proxy(store.endpoint) as proxy:
            os.environ |= store.environment(proxy.endpoint)

            def count(what: str, action: Callable[[], Any]) -> Any:
                before = len(proxy.requests)
                result = action()
                found[what] = len(proxy.requests) - before
                print(f"{what:45} {found[what]:4} requests")
                return result

            shard = location(f"{store.url}/shards/shard-00000.arrow")
            for size in (SHARD_BYTES, 48 << 20):
                content = np.random.default_rng(size).bytes(size)
                shard.write_bytes(content)
                (root / "shard").write_bytes(content)
                record = ShardRecord(file=shard.name, rows=1, bytes=size, sha256=sha256(location(root / "shard")))
                cache = ShardCache(root / "cache", 1 << 30)
                count(f"download of a shard of {size >> 20} MiB", lambda: cache.get(shard, record))  # noqa: B023
            convert(find_card("shapes"), "-", location(f"{store.url}/shapes"), "val")
            count("opening of a split", lambda: open_split(f"{store.url}/shapes", "val"))
            bundle.save(f"{store.url}/bundle")
            count("opening of a bundle", lambda: open_bundle(f"{store.url}/bundle"))
            checkpoints = Checkpoints(location(f"{store.url}/run/checkpoints/key"))
            for step in (1, 2):
                checkpoints.save(step, state)
            began = time.perf_counter()
            count("third and later checkpoints", lambda: checkpoints.save(3, state))
            found["seconds of a checkpoint through the proxy"] = round(time.perf_counter() - began, 2)
            count("going on from a checkpoint", checkpoints.newest)
            with hold(location(f"{store.url}/run"), print) as lease:
                count("sign of life of a run", lambda: sign_of_life(lease))
                candidate = _Candidate(location(f"{store.url}/run"))
                count(
                    "look of a trial that waits",
                    lambda: (location(f"{store.url}/kept/stage.json").exists(), candidate.attempt()),
                )
    return found
