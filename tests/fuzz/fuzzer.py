"""Hostile files for every reader, for as long as asked: each is read, or refused in one line.

Usage: fuzzer.py [--seconds 60] [--seed N] [--save FOLDER] [TARGET …]
       fuzzer.py --replay FILE TARGET   reads one file again
"""

import argparse
import contextlib
import faulthandler
import itertools
import os
import random
import resource
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from fuzz_mutation import mutated
from fuzz_targets import TARGETS, Target

from yolo_dist.errors import ConfigError, YoloDistError

SLOW_SECONDS = 10.0
"""Processor time that no small file may cost."""
MEMORY = 4 << 30
"""Bytes of address space beyond those in use that no small file may ask for."""


def check(target: Target, data: bytes, folder: Path) -> None:
    """Give bytes to a reader.

    Raises:
        AssertionError: it is refused in more than a line, or takes too long.
        Exception: whatever the reader raises that is no refusal.
    """
    began, refusal = time.process_time(), None
    try:
        with contextlib.redirect_stdout(None), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            target.read(data, folder)
    except YoloDistError as error:
        refusal = error
    lines = refusal.problems if isinstance(refusal, ConfigError) else [] if refusal is None else [str(refusal)]
    assert all(line and "\n" not in line for line in lines), f"refused in several lines: {refusal}"
    assert time.process_time() - began < SLOW_SECONDS, "took too long"


def cases(target: Target, folder: Path, seed: int) -> Iterator[bytes]:
    """Hostile files without end; the same for the same seed."""
    (folder / "examples").mkdir()
    examples = target.examples(folder / "examples")
    return (mutated(examples, random.Random(f"{seed} {number}")) for number in itertools.count())


def fuzz(name: str, seconds: float, seed: int, save: Path) -> bool:
    """Run a target for some time; whether nothing was found. The last file lies in `save` if the process dies."""
    target, number = TARGETS[name], 0
    last = save / f"{name}.bytes"
    with tempfile.TemporaryDirectory(prefix="yolo-dist-fuzz-") as temporary:
        os.environ["YOLO_DIST_CACHE"] = f"{temporary}/cache"
        work = Path(temporary) / "work"
        work.mkdir()
        until = time.monotonic() + seconds
        for number, data in enumerate(cases(target, Path(temporary), seed)):
            last.write_bytes(data)
            try:
                check(target, data, work)
            except Exception as error:
                sys.stdout.write(f"{name}: {type(error).__name__}: {error}; seed {seed}, file {number}: {last}\n")
                return False
            if time.monotonic() > until:
                break
    last.unlink()
    sys.stdout.write(f"{name}: {number + 1} files, nothing found (seed {seed})\n")
    return True


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=", ".join(TARGETS))
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seed", type=int, default=time.time_ns() % 1_000_000)
    parser.add_argument("--save", type=Path, default=Path(tempfile.gettempdir()), help="folder for what was found")
    parser.add_argument("--replay", type=Path, help="a file that was found")
    asked = parser.parse_args()
    if unknown := set(asked.targets) - TARGETS.keys():
        parser.error(f"there is no target {', '.join(unknown)}; there are {', '.join(TARGETS)}")
    faulthandler.enable()
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, used + MEMORY))
    if asked.replay:
        with tempfile.TemporaryDirectory(prefix="yolo-dist-fuzz-") as folder:
            for name in asked.targets:
                check(TARGETS[name], asked.replay.read_bytes(), Path(folder))
        return
    found = [fuzz(name, asked.seconds, asked.seed, asked.save) for name in asked.targets or TARGETS]
    sys.exit(not all(found))


if __name__ == "__main__":
    main()
