"""Memory that was freed: kept for the next training step, or given back to the kernel. glibc only; else as it is."""

import ctypes
import sys
from typing import Any

_LARGE = 2**30
KEEPING_FREED_MEMORY = {
    "MALLOC_ARENA_MAX": "1",
    "MALLOC_MMAP_THRESHOLD_": str(_LARGE),
    "MALLOC_TRIM_THRESHOLD_": str(2 * _LARGE - 1),
}
"""Environment in which a new process keeps the memory of freed activations for the next step, where glibc is its C
library: by default blocks of this size go back to the kernel, and every step waits while it clears the same pages."""

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
"""glibc's numbers for `mallopt`, from its malloc.h."""


def keep_freed_memory() -> None:
    """Do for this process what `KEEPING_FREED_MEMORY` does for a new one; its first thread profits most."""
    if (mallopt := _glibc("mallopt")) is not None:
        mallopt(_M_MMAP_THRESHOLD, _LARGE)
        mallopt(_M_TRIM_THRESHOLD, 2 * _LARGE - 1)


def return_freed_memory() -> None:
    """Give the kernel back what lies free between blocks in use, after work on many large tensors of all sizes."""
    if (malloc_trim := _glibc("malloc_trim")) is not None:
        malloc_trim(0)


def _glibc(function: str) -> Any | None:
    return getattr(ctypes.CDLL(None), function, None) if sys.platform == "linux" else None
