"""The application: all commands in one place, and what happens to errors."""

import sys
from collections.abc import Callable
from typing import Annotated

import typer

from yolo_dist.cli import data, export, jobs, models, pruning, quantization, run_folders, runs, sensitivity, tune
from yolo_dist.errors import InputError, Interrupted, YoloDistError

INTERRUPTED = 130

app = typer.Typer(
    name="yolo-dist",
    help="From images in their own formats to the smallest YOLOv3/v4 detector that keeps its accuracy.\n\n"
    "Start with: yolo-dist demo",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
shards = typer.Typer(
    help="Look at a converted dataset.\n\nExample: yolo-dist shards info data/bccd", no_args_is_help=True
)
app.add_typer(shards, name="shards")
cluster_jobs = typer.Typer(
    help="Look at jobs on a cluster.\n\nExample: yolo-dist jobs list --address http://10.0.0.1:8265",
    no_args_is_help=True,
)
app.add_typer(cluster_jobs, name="jobs")
kept_runs = typer.Typer(
    help="Look at the runs of a storage.\n\nExample: yolo-dist runs list s3://bucket/runs", no_args_is_help=True
)
app.add_typer(kept_runs, name="runs")

_top: list[Callable[..., None]] = [
    runs.demo,
    runs.doctor,
    data.datasets,
    data.convert,
    data.anchors,
    runs.run,
    tune.tune,
    models.train,
    pruning.prune,
    sensitivity.sensitivity,
    quantization.quantize,
    models.evaluate,
    models.detect,
    export.export,
    runs.report,
]
_below_shards: list[Callable[..., None]] = [data.info, data.verify, data.preview]
for command in _top:
    app.command()(command)
for command in _below_shards:
    shards.command()(command)
app.command(context_settings=jobs.PASS_THROUGH)(jobs.submit)
cluster_jobs.command("list")(jobs.list_jobs)
cluster_jobs.command()(jobs.logs)
cluster_jobs.command()(jobs.stop)
kept_runs.command("list")(run_folders.list_runs)
for command in (run_folders.show, run_folders.pull, run_folders.clean):
    kept_runs.command()(command)


@app.callback()
def options(
    debug: Annotated[bool, typer.Option("--debug", help="Show where in the code an error was raised.")] = False,
) -> None:
    """Options before the command."""
    _Debug.on = debug


WRONG_PATHS = (FileExistsError, FileNotFoundError, IsADirectoryError, NotADirectoryError, PermissionError)


class _Debug:
    on = False


def main() -> None:
    """Entry point: exit 0 when done, 1 when the work failed, 2 when the input is wrong."""
    try:
        app(prog_name="yolo-dist")
    except SystemExit as leaving:
        if leaving.code == INTERRUPTED:
            sys.stderr.write("interrupted; the same command goes on where it stopped\n")
        raise
    except Exception as error:
        if _Debug.on:
            raise
        for line in _lines(error):
            sys.stderr.write(line + "\n" if isinstance(error, Interrupted) else f"error: {line}\n")
        sys.exit(_exit_code(error))


def _exit_code(error: Exception) -> int:
    if isinstance(error, YoloDistError):
        return error.exit_code
    wrong_path = isinstance(error, WRONG_PATHS) and error.filename is not None
    return InputError.exit_code if wrong_path else YoloDistError.exit_code


def _lines(error: Exception) -> list[str]:
    """One line for each thing that is wrong."""
    if isinstance(error, YoloDistError):
        return str(error).splitlines()
    if isinstance(error, OSError) and error.filename is not None:
        return [f"{error.filename}: {error.strerror}; check the path and its permissions"]
    text = " ".join(str(error).split())
    return [f"unexpected {type(error).__name__}: {text}; `yolo-dist --debug …` shows where it comes from"]
