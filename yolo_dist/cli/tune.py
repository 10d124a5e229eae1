"""The command `tune`.

What takes seconds to import is imported where it is used, so that help is quick.
"""

from typing import TYPE_CHECKING, Annotated

import typer

from yolo_dist.cli import show
from yolo_dist.cli.options import Json
from yolo_dist.config import read_yaml
from yolo_dist.errors import ConfigError

if TYPE_CHECKING:
    from yolo_dist.tune.results import SearchResults


def tune(
    space: Annotated[str, typer.Argument(help="YAML file of the space.")],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(
            help="key=value of the space, such as trials=8; all other keys, and stage.key, are the recipe's."
        ),
    ] = None,
    check: Annotated[bool, typer.Option("--check", help="Validate everything, start nothing.")] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with a search that was interrupted.")] = False,
    export: Annotated[
        str | None,
        typer.Option("--export", metavar="TRIAL", help="Write this trial's recipe and model; knee: the suggested one."),
    ] = None,
    out: Annotated[str | None, typer.Option("--out", help="With --export: where to.", show_default=False)] = None,
    as_json: Json = False,
) -> None:
    """Search recipes for the best trade-offs; trials run the stages that they have in common once.

    Example: yolo-dist tune tune_spaces/sparsity_and_percent.yaml trials=12
    Example: yolo-dist tune tune_spaces/sparsity_and_percent.yaml --export knee
    """
    from yolo_dist.tune.space import read_space

    _require_space(space)
    if export is not None:
        from yolo_dist.tune.export import export_trial

        exported = export_trial(read_space(space, overrides), export, out)
        if as_json:
            show.as_json({"exported": str(exported)})
        else:
            typer.echo(f"exported: {exported}")
        return
    if out is not None:
        raise ConfigError("options", ["--out goes with --export, which takes a trial out of the search"])
    from yolo_dist.tune.search import check_search, require_this_search, search

    loaded = read_space(space, overrides, check_search)
    if check:
        trials, stages = loaded.most_trials, len(check_search(loaded, space).stages)
        require_this_search(loaded, space, resume)
        if as_json:
            show.as_json({"trials": trials, "stages": stages})
        else:
            typer.echo(f"{space}: {trials} trials of {stages} stages: nothing wrong")
        return
    with show.progress_apart(as_json):
        results = search(loaded, space, resume)
    if as_json:
        show.as_json(results.model_dump(mode="json"))
    else:
        _show(results)
    from yolo_dist.storage import location

    typer.echo(f"page: {location(loaded.storage) / loaded.name / 'tune.html'}", err=as_json)


def _require_space(path: str) -> None:
    """Refuse a recipe, of which no key is one of a space's.

    Raises:
        ConfigError: it is one, or no YAML.
    """
    from yolo_dist.recipe import is_recipe

    if is_recipe(read_yaml(path, "tune_spaces")):
        raise ConfigError(path, [f"is a recipe, not a search space; `yolo-dist run {path}` runs it"])


def _show(results: "SearchResults") -> None:
    from yolo_dist.tune.page import LABELS, TEXTS

    rows = []
    for name in results.front:
        record = results.trial(name)
        assert record is not None
        values = ", ".join(f"{path} {value}" for path, value in record.values.items())
        measured = [TEXTS[objective](record.measured[objective]) for objective in results.objectives]
        rows.append((name, *measured, values, "suggested" if name == results.knee else ""))
    headings = [LABELS[objective] for objective in results.objectives]
    show.table(("trial", *headings, "values", ""), rows, "Pareto front", texts=("values", ""))
    typer.echo(f"{results.stages_run} stages were run, {results.stages_taken} taken from other trials")
