"""Where a report was written: machine and versions, for whoever compares numbers."""

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

PACKAGES = ("yolo-dist", "torch", "ray", "numpy", "opencv-python-headless", "pyarrow")


def machine_facts() -> list[str]:
    """Processor, cores, operating system, Python and package versions, one phrase each."""
    cores = os.cpu_count() or 1
    versions = [f"{package} {found}" for package in PACKAGES if (found := _version(package))]
    return [
        _processor(),
        f"{cores} core{'s' if cores > 1 else ''}",
        f"{platform.system()} {platform.machine()}",
        f"Python {platform.python_version()}",
        *versions,
    ]


def _processor() -> str:
    """The processor's trade name; Linux alone tells it, elsewhere the architecture has to do."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.machine())


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
