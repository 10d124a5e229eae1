"""The application: all commands in one place, and what happens to errors."""

import sys
from typing import Annotated

import typer

from yolo_dist.cli import data, models, runs
from yolo_dist.errors import YoloDistError

INTERRUPTED = 130

app = typer.Typer(
    name="yolo-dist",
    help="From images in their own formats to the smallest YOLOv3/v4 detector that keeps its accuracy.\n\n"
    "Start with: yolo-dist demo",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
shards = typer.Typer(help="Look at a converted dataset.", no_args_is_help=True)
app.add_typer(shards, name="shards")

for command in (runs.demo, runs.doctor, data.datasets, data.convert):
    app.command()(command)
for command in (data.info, data.verify, data.preview):
    shards.command()(command)
for command in (runs.run, models.train, models.prune, models.evaluate, models.detect, runs.report):
    app.command()(command)


@app.callback()
def options(
    debug: Annotated[bool, typer.Option("--debug", help="Show where in the code an error was raised.")] = False,
) -> None:
    """Options before the command."""
    _Debug.on = debug


class _Debug:
    on = False


def main() -> None:
    """Entry point: exit 0 when done, 1 when the work failed, 2 when the input is wrong."""
    try:
        app(standalone_mode=True)
    except YoloDistError as error:
        if _Debug.on:
            raise
        for line in str(error).splitlines():
            sys.stderr.write(f"error: {line}\n")
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        sys.stderr.write("interrupted; the same command goes on where it stopped\n")
        sys.exit(INTERRUPTED)
