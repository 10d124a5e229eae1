"""Which Ray cluster a process belongs to; imports next to nothing, as every process that Ray starts runs it first."""

import os

import ray


def set_address() -> None:
    """Tell Ray's helpers in a worker process which cluster is theirs: they search, and stop at a second one."""
    os.environ.setdefault("RAY_ADDRESS", ray.get_runtime_context().gcs_address)
