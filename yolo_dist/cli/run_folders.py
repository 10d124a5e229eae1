"""Commands about the runs of a storage: runs list, show, pull and clean."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from yolo_dist.cli import show as showing
from yolo_dist.cli.options import Json

Storage = Annotated[str, typer.Argument(help="Folder or URL that recipes call storage.")]
RunFolder = Annotated[str, typer.Argument(metavar="RUN", help="Folder or URL of a run.")]


def list_runs(storage: Storage = "runs", as_json: Json = False) -> None:
    """List the runs of a storage: how far each is, its size, and who writes it.

    Example: yolo-dist runs list runs
    """
    from yolo_dist import run_folders

    runs = run_folders.list_runs(storage)
    if as_json:
        showing.as_json([asdict(run) for run in runs])
        return
    rows = [
        (
            run.name,
            f"{len(run.done)}/{run.stages}",
            showing.decimal(run.map50),
            _mebibytes(run.bytes),
            _mebibytes(run.unfinished_bytes),
            run.holder or "",
        )
        for run in runs
    ]
    showing.table(("run", "stages", "mAP50", "MiB", "unfinished MiB", "written by"), rows, texts=("written by",))
    for run in runs:
        if run.problem:
            typer.echo(f"{run.name} cannot be read: {run.problem}")


def show(run: RunFolder, as_json: Json = False) -> None:
    """Show what each stage of a run measured, those of its stages that are missing, and who writes it.

    Example: yolo-dist runs show runs/bccd
    """
    from yolo_dist import run_folders
    from yolo_dist.stage_cache import StageResult
    from yolo_dist.storage import location

    folder = location(run)
    found, results = run_folders.look_at(folder), run_folders.results_of(folder)
    if as_json:
        showing.as_json(asdict(found) | {"results": results})
        return
    showing.results([StageResult(**result) for result in results], json_wanted=False)
    missing = [stage.id for stage in run_folders.recipe_of(folder).stages if stage.id not in found.done]
    if missing:
        typer.echo(f"not there yet: {', '.join(missing)}")
    if found.holder:
        typer.echo(f"written by {found.holder}")


def pull(run: RunFolder, to: Annotated[str, typer.Option("--out", help="Local folder of runs.")] = "runs") -> None:
    """Copy a run from a storage: bundles, results, report; not what is unfinished in it.

    Example: yolo-dist runs pull runs/bccd --out fetched
    """
    from yolo_dist import run_folders
    from yolo_dist.storage import location

    folder = location(run)
    target = Path(to) / folder.name
    typer.echo(f"{target}: {_mebibytes(run_folders.pull(folder, target))} MiB")


def clean(
    runs: Annotated[list[str], typer.Argument(metavar="RUN…", help="Folders or URLs of runs.")],
    whole: Annotated[bool, typer.Option("--whole", help="Delete the runs, not only what is unfinished.")] = False,
    check: Annotated[bool, typer.Option("--check", help="Say what would be deleted, delete nothing.")] = False,
) -> None:
    """Delete what unfinished stages left in runs, checkpoints too; whole runs with --whole.

    Example: yolo-dist runs clean runs/bccd --check
    """
    from yolo_dist import run_folders
    from yolo_dist.storage import location

    for run in runs:
        folder = location(run)
        if check:
            found = run_folders.look_at(folder)
            freed = found.bytes if whole else found.unfinished_bytes
        else:
            freed = run_folders.clean(folder, typer.echo, whole)
        typer.echo(f"{run}: {_mebibytes(freed)} MiB {'would be freed' if check else 'freed'}")


def _mebibytes(size: int) -> str:
    return f"{size / 2**20:.1f}"
