"""What travels to a cluster with a job: the working directory without data, runs, caches and what git ignores."""

import os
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from pathspec import GitIgnoreSpec

from yolo_dist.errors import ConfigError

EXCLUDED = (
    *(".git/", ".github/", ".venv*/", "venv/", "__pycache__/", ".*_cache/", ".hypothesis/", "*.egg-info/", "*.env"),
    *("/data/", "/runs/", "/dist/", "wandb/", "*.arrow", "/tests/", "/benchmarks/", "/docs/"),
)
"""Never packed, in the words of a .gitignore; a leading slash is the working directory."""
IGNORE_FILES = (".gitignore", ".rayignore")
LARGEST_PACKAGE = 100 * 2**20
"""Bytes that Ray's job server takes."""
NAMED = 5
"""Files that a message about a package too large names."""
_SAME_TIME = (1980, 1, 1, 0, 0, 0)


@dataclass(frozen=True)
class Package:
    """Files below a folder.

    Attributes:
        folder: the working directory.
        files: those that travel, relative to it, in order.
        bytes: their size together.
    """

    folder: Path
    files: tuple[Path, ...]
    bytes: int

    def write(self, target: Path) -> None:
        """Write a zip file; the same files give the same bytes, so that Ray knows a package that it has."""
        with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
            for file in self.files:
                entry = zipfile.ZipInfo(file.as_posix(), _SAME_TIME)
                entry.external_attr = (self.folder / file).stat().st_mode << 16
                entry.compress_type = zipfile.ZIP_DEFLATED
                archive.writestr(entry, (self.folder / file).read_bytes())


def pack(folder: Path, limit: int = LARGEST_PACKAGE) -> Package:
    """Choose what travels; reads names and sizes alone.

    Args:
        folder: the working directory.
        limit: most bytes before they are compressed.

    Raises:
        ConfigError: it is too much; names the largest files.
    """
    files = tuple(sorted(_chosen(folder, ())))
    sizes = {file: (folder / file).stat().st_size for file in files}
    total = sum(sizes.values())
    if total > limit:
        largest = sorted(files, key=lambda file: -sizes[file])[:NAMED]
        named = ", ".join(f"{file.as_posix()} {_mebibytes(sizes[file])}" for file in largest)
        problem = (
            f"{_mebibytes(total)} would travel to the cluster, {_mebibytes(limit)} may; the largest files are "
            f"{named}; name in .rayignore what a job does not need, or put it into the storage"
        )
        raise ConfigError(str(folder), [problem])
    return Package(folder, files, total)


def _chosen(folder: Path, rules: Sequence[tuple[Path, GitIgnoreSpec]]) -> Iterator[Path]:
    """Files relative to the outermost folder; rules of a folder hold for all that is below it."""
    root = rules[0][0] if rules else folder
    lines = [] if rules else list(EXCLUDED)
    for name in IGNORE_FILES:
        if (folder / name).is_file():
            lines += (folder / name).read_text().splitlines()
    rules = [*rules, (folder, GitIgnoreSpec.from_lines(lines))]
    with os.scandir(folder) as entries:
        for entry in sorted(entries, key=lambda entry: entry.name):
            path = Path(entry.path)
            below = entry.is_dir(follow_symlinks=False)
            if any(rule.match_file(f"{path.relative_to(base).as_posix()}{'/' * below}") for base, rule in rules):
                continue
            if below:
                yield from _chosen(path, rules)
            elif entry.is_file():
                yield path.relative_to(root)


def _mebibytes(size: int) -> str:
    return f"{size / 2**20:.1f} MiB"
