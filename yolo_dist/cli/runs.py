"""Commands about whole runs: demo, doctor, run, report.

What takes seconds to import is imported where it is used, so that help is quick.
"""

from typing import TYPE_CHECKING, Annotated

import typer

from yolo_dist.cli import show
from yolo_dist.cli.options import Json, Overrides

if TYPE_CHECKING:
    from yolo_dist.recipe import Recipe


def demo(
    storage: Annotated[str, typer.Option("--out", help="Where the run goes.")] = "runs",
    data: Annotated[str, typer.Option("--data", help="Where the generated dataset goes.")] = "data",
    overrides: Overrides = None,
    as_json: Json = False,
) -> None:
    """Run the whole recipe on data it makes itself; ends with a table and a report.

    Example: yolo-dist demo
    """
    from yolo_dist.demo import run_demo

    with show.progress_apart(as_json):
        recipe, results = run_demo(storage, data, overrides or [])
    show.results(results, as_json)
    _point_to_report(recipe, as_json)


def doctor(
    address: Annotated[
        str | None,
        typer.Option("--address", help="Look at a cluster: its Ray address, or auto on one of its machines."),
    ] = None,
    storage: Annotated[
        str | None, typer.Option("--storage", help="URL or path that this machine, or every node, should write.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Say what this machine, or every node of a cluster, can do, what is missing and how to get it.

    Example: yolo-dist doctor
    """
    if address is None:
        from yolo_dist.doctor import examine

        findings = examine(storage)
    else:
        from yolo_dist.cluster_doctor import examine_cluster

        findings = examine_cluster(address, storage)
    if as_json:
        show.as_json([vars(finding) for finding in findings])
    else:
        for finding in findings:
            typer.echo(f"{'ok  ' if finding.ok else 'note'}  {finding.what + ':':12} {finding.found}")
            if finding.remedy:
                typer.echo(f"{'':20}{finding.remedy}")


def run(
    recipe: Annotated[str, typer.Argument(help="YAML file of the recipe.")],
    overrides: Overrides = None,
    check: Annotated[bool, typer.Option("--check", help="Validate everything, start nothing.")] = False,
    as_json: Json = False,
) -> None:
    """Run a recipe, from the cache where nothing changed.

    Example: yolo-dist run launch/bccd.yaml tuned.epochs=30 cluster.workers=1
    """
    from yolo_dist import pipeline
    from yolo_dist.recipe import read_recipe

    loaded = read_recipe(recipe, overrides)
    if check:
        _check(loaded, recipe, as_json)
        return
    with show.progress_apart(as_json):
        results = pipeline.run(loaded, recipe)
    show.results(results, as_json)
    _point_to_report(loaded, as_json)


def _check(recipe: "Recipe", source: str, as_json: bool) -> None:
    """Look at everything that a recipe refers to, and at what it would run on; start nothing."""
    from yolo_dist import inputs
    from yolo_dist.ray_cluster import problems_of_workers

    cluster = recipe.cluster
    found = inputs.check(
        recipe, source, problems_of_workers(cluster.resources, cluster.fewest_workers, "cluster.workers")
    )
    stages, training, validation = len(recipe.stages), len(found.train), len(found.validation)
    if as_json:
        show.as_json({"stages": stages, "training_images": training, "validation_images": validation})
        return
    typer.echo(
        f"{source}: {stages} stages on {training:,} training and {validation:,} validation images: nothing wrong"
    )


def report(run_folder: Annotated[str, typer.Argument(metavar="RUN", help="Folder or URL of a run.")]) -> None:
    """Rebuild the HTML page of a run.

    Example: yolo-dist report runs/bccd
    """
    from yolo_dist.report import build_report

    typer.echo(f"report: {build_report(run_folder)}")


def _point_to_report(recipe: "Recipe", as_json: bool) -> None:
    from yolo_dist.layout import REPORT_FILE
    from yolo_dist.storage import location

    typer.echo(f"report: {location(recipe.storage) / recipe.name / REPORT_FILE}", err=as_json)
