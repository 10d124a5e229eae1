"""What `prune --explain` prints: sets of channels and shortcuts, and what pruning may take of them."""

from typing import TYPE_CHECKING

import typer

from yolo_dist.cli import show
from yolo_dist.cli.options import load_model

if TYPE_CHECKING:
    from yolo_dist.compress.pruning import PruneConfig
    from yolo_dist.compress.pruning.explanation import Explanation
    from yolo_dist.darknet.cfg import Cfg
    from yolo_dist.darknet.network import Network


def explain(
    model: str | None, cfg: str | None, weights: str | None, config: "PruneConfig", *, planned: bool, as_json: bool
) -> None:
    """Print what pruning may take from a network and why not the rest.

    Args:
        model: a bundle, or the name of a network of the zoo.
        cfg, weights: a Darknet cfg in place of it; weights may be missing.
        config: scope of the explanation, and the method whose plan is asked for.
        planned: whether to say what the method would keep; it needs weights.
        as_json: print records in place of tables.

    Raises:
        ConfigError: neither or both of model and cfg are given.
        CfgError, ModelError, PruneError: the model cannot be read, or the method cannot meet the request.
    """
    from yolo_dist.compress.graph import ChannelGraph
    from yolo_dist.compress.pruning import explanation, make_plan

    description, network = _described(model, cfg, weights)
    graph = ChannelGraph.from_cfg(description)
    if planned and network is None:
        typer.echo(f"what {config.method} would keep depends on weights, which are not given", err=True)
    plan = make_plan(network, config) if planned and network is not None else None
    explained = explanation.explain(graph, config.scope, *((plan.masks(), plan.blocks) if plan is not None else ()))
    if as_json:
        asked = {"method": plan.method, "percent": plan.percent, "threshold": plan.threshold} if plan else {}
        show.as_json(asked | explained.as_json())
        return
    title = f"Channels of {description.source}, {len(description.layers)} layers, scope {config.scope}"
    _show_sets(explained, title + (f", as {plan.method} at {plan.percent:g} leaves them" if plan else ""))
    _show_shortcuts(explained)


def _described(model: str | None, cfg: str | None, weights: str | None) -> "tuple[Cfg, Network | None]":
    """The cfg that the options name, and the network where there are weights."""
    from yolo_dist.darknet.cfg import read_cfg
    from yolo_dist.darknet.shapes import infer_shapes
    from yolo_dist.darknet.zoo import ZOO, zoo_cfg

    if model in ZOO and cfg is None and weights is None:
        return zoo_cfg(model), None
    if model is None and cfg is not None and weights is None:
        description = read_cfg(cfg)
        infer_shapes(description)
        return description, None
    network = load_model(model, cfg, weights, None).network
    return network.cfg, network


def _show_sets(explained: "Explanation", title: str) -> None:
    from yolo_dist.compress.pruning.explanation import numbered

    planned = any(one.kept is not None for one in explained.sets)
    columns = ("convolutions", "channels", *(("kept",) if planned else ()), "handed on by", "read by", "may be cut")
    show.table(
        columns,
        [
            (
                numbered(one.convolutions),
                str(one.width),
                *((str(one.kept),) if planned else ()),
                numbered(one.handed_on_by),
                numbered(one.read_by),
                one.verdict,
            )
            for one in explained.sets
        ],
        title,
        texts=columns[-3:],
    )
    total = sum(one.width for one in explained.sets)
    for rule in explained.sets[0].may_cut if explained.sets else ():
        able = [one for one in explained.sets if one.may_cut[rule]]
        typer.echo(f"{rule} chooses from {sum(one.width for one in able):,} of {total:,} channels, in {len(able)} sets")


def _show_shortcuts(explained: "Explanation") -> None:
    from yolo_dist.compress.pruning.explanation import numbered

    if not explained.shortcuts:
        typer.echo("no shortcuts, so no residual blocks that a layer method could remove")
        return
    columns = ("shortcut", "adds to", "branch", "may be removed")
    show.table(
        columns,
        [
            (
                str(one.shortcut),
                str(one.block.identity) if one.block else "",
                numbered(one.block.branch) if one.block else "",
                ("yes, and is" if one.removed else "yes") if one.block else f"no: {one.reason}",
            )
            for one in explained.shortcuts
        ],
        "Residual blocks",
        texts=columns[1:],
    )
