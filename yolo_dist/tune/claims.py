"""Who is doing a piece of work: one at a time, and after the end of one that died the next.

A claim is a file of its own number, `NAME.1`, `NAME.2`, …; the highest number has the work. A number can be created
only once, on a disk and in an object store alike, so of several who want the next one gets it. Its owner writes a new
beat into it every few seconds. Those who wait compare no clocks with it: they look whether it changes, and when it has
not for long enough its owner is dead.
"""

import json
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

from upath import UPath

from yolo_dist.errors import YoloDistError
from yolo_dist.storage import create, publish

RELEASED = "released"


@dataclass
class Claims:
    """Claims on named pieces of work, kept as files.

    Attributes:
        folder: where the files lie; everybody reaches it.
        beat_seconds: between two signs of life.
        lost_seconds: without one after which an owner counts as dead.
        clock, wait: time in seconds, and how to let some pass; tests have their own.
    """

    folder: UPath
    beat_seconds: float = 5.0
    lost_seconds: float = 30.0
    clock: Callable[[], float] = time.monotonic
    wait: Callable[[float], None] = time.sleep
    _seen: dict[str, tuple[str, float]] = field(default_factory=dict)

    @contextmanager
    def held(self, name: str, done: Callable[[], bool]) -> Iterator[bool]:
        """Have a piece of work inside the block, unless somebody else finishes it first; waits for either.

        Args:
            name: of the work.
            done: whether it is done.

        Yields:
            Whether it is ours to do; else it is done.
        """
        while not done():
            if (claim := self.attempt(name)) is not None:
                with self._beating(claim):
                    yield not done()  # its last owner may have finished since we looked
                return
            self.wait(self.beat_seconds / 2)
        yield False

    def attempt(self, name: str) -> UPath | None:
        """Claim the work: the claim's file, or None as long as somebody alive has it."""
        number, content = self._highest(name)
        if content is not None and not self._is_over(name, number, content):
            return None
        claim = self._file(name, number + 1)
        return claim if create(claim, _beat(secrets.token_hex(8), 0)) else None

    @contextmanager
    def _beating(self, claim: UPath) -> Iterator[None]:
        """Show that the claim's owner is alive, and at the end that it has let go."""
        ended = threading.Event()
        owner = json.loads(claim.read_text())["owner"]

        def beat() -> None:
            number = 0
            while not ended.wait(self.beat_seconds):
                number += 1
                with suppress(OSError, YoloDistError):  # one that was not written counts for nothing, the next may be
                    publish(claim, _beat(owner, number))

        beats = threading.Thread(target=beat, name=f"claim {claim.name}", daemon=True)
        beats.start()
        try:
            yield
        finally:
            ended.set()
            beats.join()
            publish(claim, RELEASED)

    def _highest(self, name: str) -> tuple[int, str | None]:
        """Number and content of the newest claim; 0 and None where there is none."""
        number, content = 0, None
        while (following := _read(self._file(name, number + 1))) is not None:
            number, content = number + 1, following
        return number, content

    def _is_over(self, name: str, number: int, content: str) -> bool:
        if content == RELEASED:
            return True
        state = f"{number} {content}"
        last, since = self._seen.get(name, ("", 0.0))
        if state != last:
            self._seen[name] = (state, self.clock())
            return False
        return self.clock() - since >= self.lost_seconds

    def _file(self, name: str, number: int) -> UPath:
        return self.folder / f"{name}.{number}"


def _beat(owner: str, number: int) -> str:
    return json.dumps({"owner": owner, "beat": number})


def _read(path: UPath) -> str | None:
    try:
        return str(path.fs.cat_file(path.path).decode())  # past every cache of listings
    except FileNotFoundError:
        return None
