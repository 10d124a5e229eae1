"""Commands about data: datasets, convert, anchors, shards."""

from pathlib import Path
from typing import Annotated

import typer

from yolo_dist.cli import show
from yolo_dist.cli.options import Json, Workers, image_size
from yolo_dist.config import validate
from yolo_dist.data.anchor_plot import plot_anchors
from yolo_dist.data.anchors import RECALL_IOU, kmeans_anchors, letterboxed_sizes
from yolo_dist.data.annotations import Reason
from yolo_dist.data.card import card_names, find_card
from yolo_dist.data.card_anchors import write_anchors
from yolo_dist.data.conversion.convert import ConvertConfig
from yolo_dist.data.conversion.convert import convert as convert_split
from yolo_dist.data.conversion.index import present_splits
from yolo_dist.data.preview import contact_sheet, encode_png
from yolo_dist.data.shards import MANIFEST, Manifest, ShardSet, converted_splits, open_split
from yolo_dist.errors import ConversionError
from yolo_dist.object_store import reaching
from yolo_dist.storage import location, publish

Destination = Annotated[str, typer.Argument(help="Path or URL the dataset was converted to.")]
OneSplit = Annotated[str | None, typer.Option("--split", help="Only this split.", show_default=False)]


def datasets(
    name: Annotated[str | None, typer.Argument(help="A card's name or YAML file.")] = None, as_json: Json = False
) -> None:
    """List the dataset cards, or show one.

    Example: yolo-dist datasets bccd
    """
    if name is None:
        cards = [find_card(known) for known in card_names()]
        if as_json:
            show.as_json([card.model_dump(mode="json") for card in cards])
            return
        show.table(
            ("dataset", "classes", "format", "splits"),
            [(card.name, str(len(card.classes)), card.format, ", ".join(card.splits)) for card in cards],
        )
        return
    card = find_card(name)
    if as_json:
        show.as_json(card.model_dump(mode="json"))
        return
    anchors = {
        f"anchors {key}": " ".join(f"{width:g},{height:g}" for width, height in sizes)
        for key, sizes in card.anchors.items()
    }
    facts = {
        "title": card.title,
        "format": card.format,
        "classes": ", ".join(card.classes),
        "splits": ", ".join(card.splits),
        **(anchors or {"anchors": "computed from the converted shards"}),
        "licence": card.licence,
        "where": card.url,
        "cite": card.citation,
    }
    for key, value in facts.items():
        typer.echo(f"{key + ':':12} {value}")


def convert(
    name: Annotated[str, typer.Argument(help="Card: a name or a YAML file.")],
    source: Annotated[str, typer.Argument(help="Root of the dataset as downloaded; - for generated ones.")],
    destination: Annotated[str, typer.Argument(help="Path or URL to write to.")],
    split: OneSplit = None,
    max_bad: Annotated[float, typer.Option(help="Largest share of images or boxes that may be bad.")] = 0.05,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a finished conversion.")] = False,
    workers: Workers = 0,
    as_json: Json = False,
) -> None:
    """Convert a dataset's original files to Arrow shards; interrupted, the same command goes on where it stopped.

    Example: yolo-dist convert bccd ~/BCCD_Dataset data/bccd
    """
    card = find_card(name)
    config = validate(ConvertConfig, {"max_bad": max_bad, "overwrite": overwrite, "workers": workers}, "options")
    manifests: dict[str, Manifest] = {}
    failures: list[str] = []
    for each in [split] if split else _unfinished(present_splits(card, source), destination, overwrite):
        try:
            with show.progress(f"{card.name} {each}") as progress:
                manifests[each] = convert_split(card, source, destination, each, config, progress)
        except ConversionError as error:  # of this split; the others may be good
            failures.append(str(error))
    if manifests:
        _show_manifests(manifests, as_json)
    if failures:
        raise ConversionError("\n".join(failures))


def anchors(
    destination: Destination,
    num: Annotated[int, typer.Option("--num", min=1, max=100, help="How many: 9 for three heads, 6 for two.")] = 9,
    size: Annotated[str, typer.Option("--image-size", help="Input of the network in pixels, 416 or 320x256.")] = "416",
    split: Annotated[str, typer.Option("--split", help="Split whose boxes count.")] = "train",
    seed: Annotated[int, typer.Option("--seed", min=0, help="Of the search.")] = 0,
    out: Annotated[Path | None, typer.Option("--out", help="PNG file of the boxes and anchors to write.")] = None,
    card: Annotated[Path | None, typer.Option("--card", help="Card of your own to write them into.")] = None,
    as_json: Json = False,
) -> None:
    """Find anchors for the boxes of a converted dataset, as the network sees them.

    Example: yolo-dist anchors data/bccd --num 6 --image-size 320x256 --out anchors.png
    """
    width, height = image_size(size)
    shards = open_split(destination, split)
    sizes = letterboxed_sizes(shards, (width, height))
    found = kmeans_anchors(sizes, num, seed)
    fitness = f"best possible recall {found.best_possible_recall:.4f}, mean IoU {found.mean_iou:.4f}"
    if card is not None:
        write_anchors(card, found, shards.classes)
    if out is not None:
        title = f"{shards.manifest.dataset} {split}, {num} anchors at {width}x{height}: {fitness}"
        publish(location(out), encode_png(plot_anchors(sizes, found, title)))
    if as_json:
        show.as_json(
            {
                "image_size": [width, height],
                "boxes": len(sizes),
                "anchors": found.sizes.tolist(),
                "best_possible_recall": found.best_possible_recall,
                "mean_iou": found.mean_iou,
                "cfg": found.cfg_line(),
                "card": found.card_line(),
            }
        )
        return
    typer.echo(f"{num} anchors for {len(sizes):,} boxes at {width}×{height}: {fitness}")
    typer.echo(f"recall counts boxes whose best anchor has an IoU above {RECALL_IOU}")
    typer.echo(f"in a cfg:   {found.cfg_line()}")
    typer.echo(f"in a card:  {found.card_line()}")
    for written in (card, out):
        if written is not None:
            typer.echo(f"written:    {written}")


def info(destination: Destination, split: OneSplit = None, as_json: Json = False) -> None:
    """Count images and boxes, and say what was left out.

    Example: yolo-dist shards info data/bccd
    """
    _show_manifests({name: shards.manifest for name, shards in _open(destination, split).items()}, as_json)


def verify(destination: Destination, split: OneSplit = None) -> None:
    """Recompute the hash of every shard.

    Example: yolo-dist shards verify data/bccd
    """
    for name, shards in _open(destination, split).items():
        shards.verify()
        typer.echo(f"{name}: {len(shards.manifest.shards)} shards, {len(shards)} images, all hashes match")


def preview(
    destination: Destination,
    split: Annotated[str, typer.Option("--split", help="Split to show.")] = "train",
    count: Annotated[int, typer.Option("--count", min=1, help="How many images.")] = 16,
    out: Annotated[Path, typer.Option("--out", help="PNG file to write.")] = Path("preview.png"),
) -> None:
    """Draw a contact sheet of images with their boxes.

    Example: yolo-dist shards preview data/bccd --out bccd.png
    """
    shards = open_split(destination, split)
    publish(location(out), encode_png(contact_sheet(shards, count)))
    typer.echo(f"{out}: {min(count, len(shards))} of {len(shards)} images")


def _unfinished(splits: list[str], destination: str, overwrite: bool) -> list[str]:
    """Splits that an interrupted conversion left to do; all of them where none or all are done."""
    folder = location(destination)
    with reaching(folder):
        left = [split for split in splits if overwrite or not (folder / split / MANIFEST).exists()]
    if left and len(left) < len(splits):
        typer.echo(f"already converted: {', '.join(split for split in splits if split not in left)}", err=True)
    return left or splits


def _open(destination: str, split: str | None) -> dict[str, ShardSet]:
    return {name: open_split(destination, name) for name in ([split] if split else converted_splits(destination))}


def _show_manifests(manifests: dict[str, Manifest], as_json: bool) -> None:
    if as_json:
        show.as_json({split: manifest.model_dump(mode="json") for split, manifest in manifests.items()})
        return
    for split, manifest in manifests.items():
        boxes = ", ".join(f"{name} {count:,}" for name, count in manifest.boxes.items() if count)
        size = sum(shard.bytes for shard in manifest.shards) / 2**20
        typer.echo(f"{split}: {manifest.images:,} images in {len(manifest.shards)} shards ({size:,.1f} MiB)")
        typer.echo(f"  boxes: {boxes or 'none'}; ignored {manifest.ignored:,}")
        for reason, count in manifest.rejected.items():
            typer.echo(f"  left out: {count:,} × {reason}, such as {manifest.examples[reason][0]}")
        if manifest.turned:
            example = manifest.examples[Reason.STORED_TURNED][0]
            typer.echo(f"  in doubt: {manifest.turned:,} × {Reason.STORED_TURNED}, such as {example}")
