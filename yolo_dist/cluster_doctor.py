"""What a cluster can do, what is missing on which of its nodes, and how to get it."""

import logging
import os
import platform
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import ray
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from yolo_dist import node_probe
from yolo_dist.doctor import ENOUGH_DISK, ENOUGH_MEMORY, PACKAGES, Finding
from yolo_dist.errors import ClusterError
from yolo_dist.ray_cluster import passed_on

ANSWERS_WITHIN = 120.0
"""Seconds for a node to start a process and look."""
ENOUGH_OBJECT_STORE = 256 * 2**20
REDUCED_FLOATS, REDUCTIONS = 8_700_000, 5
"""A yolov3-tiny's gradients."""
SLOW_ALL_REDUCE = 1.0
"""Seconds; a training step takes about as long."""


@dataclass(frozen=True)
class Node:
    """A node that is alive, what Ray says it has, and what it says itself; None where it did not answer."""

    id: str
    name: str
    resources: dict[str, float]
    state: dict[str, Any] | None


def examine_cluster(address: str, storage: str | None = None) -> list[Finding]:
    """Look at every node of a running cluster; what is written to the storage is deleted again.

    Args:
        address: of the cluster, such as 10.0.0.1:6379, or auto for the one that this machine belongs to.
        storage: URL or path that every node should be able to write.

    Raises:
        ClusterError: it cannot be joined from here.
    """
    _join(address)
    try:
        nodes, dead = _nodes(storage)
        answering = [node for node in nodes if node.state is not None]
        return [
            _found_nodes(nodes, dead),
            _versions(answering),
            _missing(answering),
            _free(answering, "memory", ENOUGH_MEMORY, "take fewer workers a node, or larger machines"),
            _free(answering, "disk", ENOUGH_DISK, "set YOLO_DIST_CACHE to a larger disk, or clean /tmp/ray"),
            _object_stores(nodes),
            _gpus(answering),
            _storage(answering, storage),
            _all_reduce(answering),
        ]
    finally:
        ray.shutdown()


def _join(address: str) -> None:
    if "://" in address:
        remedy = "submit --address URL -- doctor --address auto"
        raise ClusterError(f"{address}: doctor needs a Ray address such as 10.0.0.1:6379; from outside: {remedy}")
    ray.cloudpickle.register_pickle_by_value(node_probe)
    os.environ["RAY_OVERRIDE_JOB_RUNTIME_ENV"] = "1"
    try:
        ray.init(
            address=address, logging_level=logging.ERROR, log_to_driver=False, runtime_env={"env_vars": passed_on()}
        )
    except (ConnectionError, RuntimeError, ValueError, RayError) as error:
        raise ClusterError(
            f"{address}: cannot be joined: {' '.join(str(error).split())}; versions of Ray and Python must be "
            "the cluster's, and RAY_AUTH_TOKEN with RAY_AUTH_MODE=token where it asks for one"
        ) from None


def _nodes(storage: str | None) -> tuple[list[Node], list[str]]:
    """Nodes that are alive, the head first, and the names of those that were lost."""
    known = ray.nodes()
    alive = [node for node in known if node["Alive"]]
    packages = ["yolo-dist", "ray", *(name for name in PACKAGES if name != "ray")]
    looks = [_on(node["NodeID"], ray.remote(node_probe.look)).remote(packages, storage) for node in alive]
    ray.wait(looks, num_returns=len(looks), timeout=ANSWERS_WITHIN)
    nodes = []
    for node, look in zip(alive, looks, strict=True):
        try:
            state = ray.get(look, timeout=0)
        except RayError:
            state = None
        nodes.append(Node(node["NodeID"], _name(node), node["Resources"], state))
    nodes.sort(key=lambda node: "node:__internal_head__" not in node.resources)
    return nodes, [_name(node) for node in known if not node["Alive"]]


def _name(node: dict[str, Any]) -> str:
    return f"{node['NodeManagerAddress']} ({node['NodeManagerHostname']})"


def _on(node: str, remote: Any) -> Any:
    return remote.options(num_cpus=0, scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False))


def _listed(parts: Sequence[str]) -> str:
    return "; ".join(parts)


def _found_nodes(nodes: Sequence[Node], dead: Sequence[str]) -> Finding:
    total = {what: sum(node.resources.get(what, 0) for node in nodes) for what in ("CPU", "GPU")}
    found = f"{len(nodes)} alive with {total['CPU']:g} CPUs and {total['GPU']:g} GPUs together"
    silent = [f"{node.name} did not answer" for node in nodes if node.state is None]
    lost = [f"{name} was lost" for name in dead]
    problems = [*silent, *lost]
    remedy = "look at the machine's /tmp/ray/session_latest/logs, or start it again" if problems else ""
    return Finding("nodes", _listed([found, *problems]), not silent, remedy)


def _versions(nodes: Sequence[Node]) -> Finding:
    """Versions on the nodes beside those of this process."""
    here = node_probe.look(["yolo-dist", *PACKAGES], None)["versions"]
    different = [
        f"{node.name} has {name} {found}, here is {here[name]}"
        for node in nodes
        for name, found in _state(node)["versions"].items()
        if found is not None and found != here[name]
    ]
    remedy = "use one image everywhere, or submit without --no-requirements" if different else ""
    found = _listed(different) or f"as here: Python {platform.python_version()}, ray {ray.__version__}"
    return Finding("versions", found, not different, remedy)


def _missing(nodes: Sequence[Node]) -> Finding:
    missing = {node.name: [name for name, found in _state(node)["versions"].items() if found is None] for node in nodes}
    lines = [f"{name} lacks {', '.join(packages)}" for name, packages in missing.items() if packages]
    remedy = "build the image of the Dockerfile, or submit without --no-requirements" if lines else ""
    return Finding("packages", _listed(lines) or "all are there", not lines, remedy)


def _free(nodes: Sequence[Node], what: str, enough: int, remedy: str) -> Finding:
    known = {node.name: _state(node)[what] for node in nodes if _state(node)[what] is not None}
    if not known:
        return Finding(what, "unknown")
    short = [f"{name} has {free / 2**30:.1f} GiB free" for name, free in known.items() if free < enough]
    found = _listed(short) or f"{min(known.values()) / 2**30:.1f} GiB free on the node that has least"
    return Finding(what, found, not short, remedy if short else "")


def _object_stores(nodes: Sequence[Node]) -> Finding:
    sizes = {node.name: node.resources.get("object_store_memory", 0) for node in nodes}
    small = [f"{name} has {size / 2**20:.0f} MiB" for name, size in sizes.items() if size < ENOUGH_OBJECT_STORE]
    found = _listed(small) or f"{min(sizes.values()) / 2**20:.0f} MiB on the node that has least"
    remedy = "ray start --object-store-memory, and as much /dev/shm for the container (shm_size)" if small else ""
    return Finding("object store", found, not small, remedy)


def _gpus(nodes: Sequence[Node]) -> Finding:
    problems = []
    for node in nodes:
        offered, state = node.resources.get("GPU", 0), _state(node)
        if offered and state["cuda"] is None:
            problems.append(f"{node.name} offers {offered:g} GPUs, its torch is a CPU build")
        if state["gpus"] > offered:
            problems.append(f"{node.name} has {state['gpus']} GPUs, Ray offers {offered:g}")
    total = sum(node.resources.get("GPU", 0) for node in nodes)
    remedy = "build the image with the CUDA torch, and start nodes with --num-gpus" if problems else ""
    return Finding("GPUs", _listed(problems) or (f"{total:g}" if total else "none"), not problems, remedy)


def _storage(nodes: Sequence[Node], storage: str | None) -> Finding:
    if storage is None:
        return Finding(
            "storage", "not looked at", remedy="give --storage URL, and every node writes a small file there"
        )
    problems = [f"{node.name}: {_state(node)['storage']}" for node in nodes if _state(node)["storage"]]
    if problems:
        remedy = "the nodes need the AWS_… variables, and a way to AWS_ENDPOINT_URL; paths must be shared folders"
        return Finding("storage", _listed(problems), False, remedy)
    return Finding("storage", f"every node writes and reads {storage}")


def _all_reduce(nodes: Sequence[Node]) -> Finding:
    what = "all-reduce"
    if not nodes:
        return Finding(what, "no node to measure on", False, "see nodes")
    first, second = nodes[0], nodes[-1]
    actors = [_on(node.id, ray.remote(node_probe.AllReducer)).remote() for node in (first, second)]
    between = f"between {first.name} and {second.name}" if first is not second else f"within {first.name}"
    try:
        place = ray.get(actors[0].place.remote(), timeout=ANSWERS_WITHIN)
        calls = [actor.seconds.remote(rank, place, REDUCED_FLOATS, REDUCTIONS) for rank, actor in enumerate(actors)]
        seconds = max(ray.get(calls, timeout=ANSWERS_WITHIN))
    except RayError as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[-1]
        remedy = "nodes must reach each other on all ports; set GLOO_SOCKET_IFNAME to the interface of their addresses"
        return Finding(what, f"{between}: {reason}", False, remedy)
    finally:
        for actor in actors:
            ray.kill(actor)
    megabytes = 4 * REDUCED_FLOATS / 1e6
    found = f"{megabytes:.0f} MB {between} in {1000 * seconds:.0f} ms"
    slow = seconds > SLOW_ALL_REDUCE
    return Finding(what, found, not slow, "place workers closer, or take a larger nominal_batch" if slow else "")


def _state(node: Node) -> dict[str, Any]:
    assert node.state is not None
    return node.state
