"""Shards brought to this machine before they are needed."""

import threading
from collections import deque
from collections.abc import Callable, Iterable


class Prefetcher:
    """A thread that fetches what it is told, in that order, until it is told something else.

    Args:
        fetch: brings one shard; what goes wrong there will go wrong again where the shard is needed, and is told there.
    """

    def __init__(self, fetch: Callable[[int], None]) -> None:
        self._fetch = fetch
        self._wanted: deque[int] = deque()
        self._change = threading.Condition()
        self._thread: threading.Thread | None = None
        self._closed = False

    def want(self, shards: Iterable[int]) -> None:
        """Fetch these next, and nothing that was wanted before."""
        with self._change:
            self._wanted = deque(shards)
            self._change.notify()
            if self._thread is None and self._wanted:
                self._thread = threading.Thread(target=self._run, name="prefetch", daemon=True)
                self._thread.start()

    def close(self) -> None:
        """End the thread; a download under way is finished first."""
        with self._change:
            self._closed = True
            self._change.notify()
        if self._thread is not None:
            self._thread.join()

    def _run(self) -> None:
        while True:
            with self._change:
                self._change.wait_for(lambda: self._closed or self._wanted)
                if self._closed:
                    return
                shard = self._wanted.popleft()
            try:
                self._fetch(shard)
            except Exception:
                with self._change:
                    self._wanted.clear()
