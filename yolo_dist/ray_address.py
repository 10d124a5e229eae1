"""Which Ray cluster a process belongs to, and by which way it reaches the others; imports next to nothing, as every
process that Ray starts runs it first."""

import os

import ray

from yolo_dist.node_probe import name_interface


def set_address() -> None:
    """Tell Ray's helpers in a worker process which cluster is theirs: they search, and stop at a second one.

    And tell gloo by which interface it reaches the other workers.
    """
    if not os.environ.get("RAY_ADDRESS"):
        os.environ["RAY_ADDRESS"] = ray.get_runtime_context().gcs_address
    name_interface()
