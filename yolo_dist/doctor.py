"""What this machine can do, what is missing, and how to get it."""

import os
import platform
import shutil
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

from yolo_dist.data.cache import DEFAULT_GIB, FOLDER_VARIABLE, SIZE_VARIABLE, ShardCache
from yolo_dist.errors import ConfigError, StorageError
from yolo_dist.node_probe import available_memory, problem_of_writing
from yolo_dist.object_store import is_remote
from yolo_dist.ray_cluster import cluster_address, joins_a_cluster
from yolo_dist.storage import location
from yolo_dist.train.precision import bfloat16_is_fast

PACKAGES = ("torch", "ray", "numpy", "opencv-python-headless", "pyarrow", "fsspec", "s3fs", "wandb")
ENOUGH_MEMORY, ENOUGH_DISK = 4 * 2**30, 5 * 2**30


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at; `remedy` says what to do if it is not ok, and may say how to get more if it is."""

    what: str
    found: str
    ok: bool = True
    remedy: str = ""


def examine(storage: str | None = None) -> list[Finding]:
    """Look at packages, processor, memory, disks, GPU, cluster, storage and tracking; nothing is changed or started.

    Args:
        storage: URL or path that this machine should be able to write: a small file, which is deleted again.
    """
    places = _keys() if storage is None else _storage(storage)
    return [_packages(), _processor(), _memory(), _disk(), _shard_cache(), _gpu(), _cluster(), places, _tracking()]


def _packages() -> Finding:
    found, missing = [f"Python {platform.python_version()}"], []
    for name in PACKAGES:
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            missing.append(name)
    remedy = f"pip install -c constraints.txt {' '.join(missing)}" if missing else ""
    return Finding("packages", ", ".join(found), not missing, remedy)


def _processor() -> Finding:
    fast = bfloat16_is_fast(torch.device("cpu"))
    precision = "bfloat16 instructions: training takes about half the time" if fast else "no bfloat16 instructions"
    found = f"{os.cpu_count()} cores, {torch.backends.cpu.get_cpu_capability()}, {precision}"
    return Finding("processor", found, remedy="" if fast else "training runs in float32; nothing to do")


def _memory() -> Finding:
    total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    available = available_memory()
    found = f"{available / 2**30:.1f} of {total / 2**30:.1f} GiB free"
    ok = available >= ENOUGH_MEMORY
    return Finding("memory", found, ok, "" if ok else "close other programs, or lower batch_size and cluster.workers")


def _disk() -> Finding:
    free = shutil.disk_usage(Path.cwd()).free
    ok = free >= ENOUGH_DISK
    remedy = "" if ok else "give runs and shards another place: storage: and shards: in the recipe"
    return Finding("disk", f"{free / 2**30:.1f} GiB free here", ok, remedy)


def _shard_cache() -> Finding:
    try:
        cache = ShardCache.of_this_machine()
    except StorageError as error:
        return Finding("shard cache", str(error), ok=False, remedy=f"unset it for {DEFAULT_GIB:g}, or set a number")
    existing = next(path for path in (cache.folder, *cache.folder.parents) if path.exists())
    free = shutil.disk_usage(existing).free + cache.used()
    found = f"{cache.folder}, {cache.used() / 2**30:.1f} of {cache.limit / 2**30:g} GiB used"
    if free >= cache.limit:
        return Finding("shard cache", found)
    remedy = f"its disk holds {free / 2**30:.1f} GiB: set {SIZE_VARIABLE} to less, or {FOLDER_VARIABLE} elsewhere"
    return Finding("shard cache", found, ok=False, remedy=remedy)


def _gpu() -> Finding:
    if not torch.cuda.is_available():
        return Finding(
            "GPU", "none visible", remedy="for one, install a CUDA build of torch and set gpus_per_worker: 1"
        )
    names = [torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())]
    return Finding("GPU", ", ".join(names))


def _cluster() -> Finding:
    if not joins_a_cluster():
        return Finding("Ray", "starts on this machine", remedy="set RAY_ADDRESS to use a cluster")
    return Finding("Ray", f"joins the cluster at {cluster_address()}")


def _storage(url: str) -> Finding:
    try:
        place = location(url)
    except ConfigError as error:
        found, _, remedy = error.problems[0].partition("; ")
        return Finding("storage", f"{url}: {found}", ok=False, remedy=remedy)
    problem = problem_of_writing(str(place))
    if problem is None:
        return Finding("storage", f"this machine writes and reads {place}")
    keys = "set AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and, for another store than Amazon's, AWS_ENDPOINT_URL"
    remedy = keys if is_remote(place) else "give another path, or look after its permissions"
    return Finding("storage", f"{place}: {problem}", ok=False, remedy=remedy)


def _keys() -> Finding:
    missing = [name for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY") if name not in os.environ]
    if missing:
        remedy = f"for s3:// URLs set {', '.join(missing)} (AWS_ENDPOINT_URL for other stores)"
        return Finding("storage", "local paths; no S3 keys in the environment", remedy=remedy)
    return Finding("storage", f"S3 keys set, endpoint {os.environ.get('AWS_ENDPOINT_URL', 'AWS')}")


def _tracking() -> Finding:
    if "WANDB_API_KEY" in os.environ:
        return Finding("tracking", "Weights & Biases key set")
    remedy = "for online runs set WANDB_API_KEY; tracking: {wandb: {mode: offline}} needs none"
    return Finding("tracking", "no Weights & Biases key", remedy=remedy)
