"""Side-by-side measurements: contestants take turns in one process, so that a busy machine slows all of them alike."""

import datetime
import json
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from yolo_dist.report.machine import machine_facts

RESULTS = Path(__file__).parent / "results"


@dataclass(frozen=True)
class Race:
    """Items a second of every contestant in every round.

    Attributes:
        rates: by contestant, one number a round.
    """

    rates: dict[str, list[float]]

    def median(self, name: str) -> float:
        """A contestant's median items per second."""
        return statistics.median(self.rates[name])

    def ratio(self, name: str, reference: str) -> float:
        """How many times as fast a contestant is: the median of the ratios round by round."""
        return statistics.median(
            one / other for one, other in zip(self.rates[name], self.rates[reference], strict=True)
        )

    def as_json(self) -> dict[str, Any]:
        """Median, smallest and largest rate of each contestant."""
        return {
            name: {"median": round(self.median(name), 2), "min": round(min(rates), 2), "max": round(max(rates), 2)}
            for name, rates in self.rates.items()
        }


def race(
    contestants: Mapping[str, Callable[[], int]],
    rounds: int,
    warm_up: int = 1,
    clock: Callable[[], float] = time.perf_counter,
) -> Race:
    """Run the contestants in turn.

    Args:
        contestants: each does its work once and returns how many items it handled.
        rounds: that are measured.
        warm_up: rounds before, that are not.
        clock: in seconds; `time.process_time` for work in one thread, where a core's rate is asked for and other
            programs should not count.
    """
    rates: dict[str, list[float]] = {name: [] for name in contestants}
    for number in range(-warm_up, rounds):
        for name, work in contestants.items():
            start = clock()
            items = work()
            seconds = clock() - start
            if number >= 0:
                rates[name].append(items / seconds)
    return Race(rates)


def show(title: str, result: Race, reference: str, unit: str) -> None:
    """Print a table: rate of each contestant, and how it compares with the reference."""
    print(title)
    width = max(len(name) for name in result.rates)
    for name in result.rates:
        print(f"  {name:{width}}  {result.median(name):10.2f} {unit}  {result.ratio(name, reference):6.3f} ×")


def peak_memory() -> int:
    """Bytes of the largest memory that this process had so far; `getrusage` would count what its parent had."""
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(status["VmHWM"].removesuffix("kB")) * 1024


def publish_result(name: str, content: Mapping[str, Any]) -> Path:
    """Write `results/<name>.json` with date and machine; returns its path."""
    stamp = {"date": datetime.datetime.now(datetime.UTC).date().isoformat(), "machine": machine_facts()}
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    path.write_text(json.dumps({**stamp, **content}, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    return path
