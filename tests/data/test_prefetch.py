"""The prefetcher: in order, until something else is wanted, and never in the way."""

import threading

from yolo_dist.data.prefetch import Prefetcher


class Fetches:
    """Records what is fetched; each fetch waits until it may go on."""

    def __init__(self) -> None:
        self.begun: list[int] = []
        self.fetched: list[int] = []
        self.change = threading.Condition()
        self.allowed = 0

    def fetch(self, shard: int) -> None:
        with self.change:
            self.begun.append(shard)
            self.change.notify_all()
            assert self.change.wait_for(lambda: self.allowed, timeout=10)
            self.allowed -= 1
            self.fetched.append(shard)
            self.change.notify_all()
        if shard < 0:
            raise OSError("planted")

    def let(self, count: int) -> None:
        """Let some fetches end, and wait until they have."""
        with self.change:
            wanted = len(self.fetched) + count
            self.allowed += count
            self.change.notify_all()
            assert self.change.wait_for(lambda: len(self.fetched) == wanted, timeout=10)

    def wait_until_begun(self, shard: int) -> None:
        with self.change:
            assert self.change.wait_for(lambda: shard in self.begun, timeout=10)


def test_shards_are_fetched_in_order() -> None:
    fetches = Fetches()
    prefetcher = Prefetcher(fetches.fetch)
    prefetcher.want([3, 1, 2])
    fetches.let(3)
    prefetcher.close()
    assert fetches.fetched == [3, 1, 2]


def test_what_is_wanted_later_takes_the_place_of_what_was_wanted_before() -> None:
    fetches = Fetches()
    prefetcher = Prefetcher(fetches.fetch)
    prefetcher.want([1, 2, 3])
    fetches.wait_until_begun(1)
    prefetcher.want([7, 8])
    fetches.let(3)
    prefetcher.close()
    assert fetches.fetched == [1, 7, 8]


def test_closing_ends_the_thread_with_the_fetch_under_way() -> None:
    fetches = Fetches()
    prefetcher = Prefetcher(fetches.fetch)
    prefetcher.want([1, 2])
    fetches.wait_until_begun(1)
    closing = threading.Thread(target=prefetcher.close)
    closing.start()
    fetches.let(1)
    closing.join(timeout=10)
    assert fetches.fetched == [1]
    assert "prefetch" not in [thread.name for thread in threading.enumerate()]


def test_a_fetch_that_fails_ends_nothing_but_its_row() -> None:
    fetches = Fetches()
    prefetcher = Prefetcher(fetches.fetch)
    prefetcher.want([-1, 2])
    fetches.let(1)
    prefetcher.want([5])
    fetches.let(1)
    prefetcher.close()
    assert fetches.fetched == [-1, 5]


def test_without_a_wish_there_is_no_thread() -> None:
    prefetcher = Prefetcher(lambda _: None)
    prefetcher.want([])
    assert "prefetch" not in [thread.name for thread in threading.enumerate()]
    prefetcher.close()
