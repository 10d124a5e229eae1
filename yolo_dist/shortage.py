"""What ran out, memory or a disk, whichever library says so."""

import os

import torch

from yolo_dist.object_store import DISK_FULL

MESSAGES = ("can't allocate memory", "not enough memory", "CUDA out of memory", "ALLOC_FAILED")


def is_lack_of_memory(error: BaseException) -> bool:
    """Whether an allocator, of Python, of torch, on a CPU or a GPU, could not give what was asked for."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(message in str(error) for message in MESSAGES)


def is_full_disk(error: BaseException) -> bool:
    """Whether a disk or a quota had no room for what was written; libraries in other languages tell it in words."""
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno in DISK_FULL
    return any(os.strerror(number) in str(error) for number in DISK_FULL)
