"""Tables, JSON and progress bars on a terminal; plain text where there is none."""

import json
import sys
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from yolo_dist.stage_cache import StageResult

PLAIN_WIDTH = 120


def console() -> Console:
    """Standard output; wide enough for a table where it is no terminal."""
    return Console(width=None if sys.stdout.isatty() else PLAIN_WIDTH, highlight=False)


def as_json(value: Any) -> None:
    """Print a value as JSON."""
    sys.stdout.write(json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def table(
    columns: Sequence[str], rows: Sequence[Sequence[str]], title: str | None = None, texts: Collection[str] = ()
) -> None:
    """Print a table; the first column and those of `texts` are text, the others are numbers."""
    if title is not None:  # a line of its own: the table's would break where the table ends
        console().print(Text(title, "italic"))
    drawn = Table()
    for number, name in enumerate(columns):
        drawn.add_column(name, justify="right" if number and name not in texts else "left")
    for row in rows:
        drawn.add_row(*(Text(cell) for cell in row))
    console().print(drawn)


def results(stages: "Sequence[StageResult]", json_wanted: bool) -> None:
    """Print what each stage of a run measured."""
    if json_wanted:
        as_json([asdict(stage) for stage in stages])
        return
    table(
        ("stage", "mAP50", "mAP", "parameters", "MMACs", "KiB", "latency ms", "seconds", ""),
        [
            (
                stage.id,
                decimal(stage.map50),
                decimal(stage.map),
                f"{stage.parameters:,}",
                f"{stage.macs / 1e6:,.1f}",
                f"{stage.weight_bytes / 1024:,.0f}",
                "" if stage.latency_ms is None else f"{stage.latency_ms:.2f}",
                f"{stage.seconds:.0f}",
                "cached" if stage.cached else "",
            )
            for stage in stages
        ],
    )


def decimal(value: float | None) -> str:
    """A metric with three places, or a dash where there is none."""
    return "–" if value is None else f"{value:.3f}"


@contextmanager
def progress_apart(json_wanted: bool) -> Iterator[None]:
    """Send what is said on the way to standard error, if standard output is for JSON."""
    if not json_wanted:
        yield
        return
    with redirect_stdout(sys.stderr):
        yield


@contextmanager
def progress(what: str) -> Iterator[Callable[[int, int], None]]:
    """A function of (done, total) that draws a bar on a terminal and nothing elsewhere."""
    bar = Progress(
        TextColumn(what),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        disable=not sys.stderr.isatty(),
    )
    with bar:
        task = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
