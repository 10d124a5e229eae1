"""The command `quantize`: post-training quantisation of one model.

What takes seconds to import is imported where it is used, so that help is quick.
"""

from typing import Annotated

import typer

from yolo_dist.cli import show
from yolo_dist.cli.options import (
    CfgFile,
    Dataset,
    Json,
    Model,
    Overrides,
    Shards,
    TrainSplit,
    ValidationSplit,
    Weights,
    load_model,
)
from yolo_dist.data.card import card_names
from yolo_dist.data.shards import open_split
from yolo_dist.errors import ConfigError
from yolo_dist.storage import location


def quantize(
    shards: Shards,
    out: Annotated[str, typer.Option("--out", help="Folder of the run; the bundle goes to stages/quantized in it.")],
    model: Model = None,
    cfg: CfgFile = None,
    weights: Weights = None,
    dataset: Dataset = None,
    split: ValidationSplit = "val",
    train_split: TrainSplit = "train",
    overrides: Overrides = None,
    as_json: Json = False,
) -> None:
    """Quantise a trained model without training: ranges from training images, accuracy from validation images.

    Example: yolo-dist quantize --model runs/bccd/stages/tuned --shards data/bccd --out runs/int8
    """
    from yolo_dist.pipeline import run
    from yolo_dist.recipe import make_recipe

    train = open_split(shards, train_split)
    converted_as = train.manifest.dataset
    if dataset is None and converted_as not in card_names():
        raise ConfigError(
            "options", [f"{shards} was converted by a card of your own, {converted_as}; give it: --dataset CARD.yaml"]
        )
    folder = location(out)
    bundle = load_model(model, cfg, weights, dataset, train.classes)
    values = {
        "name": folder.name,
        "storage": str(folder.parent),
        "dataset": dataset or converted_as,
        "shards": shards,
        "train_split": train_split,
        "validation_split": split,
        "model": model or {"cfg": cfg, "weights": weights},
        "image_size": bundle.image_size,
        "stages": [{"id": "quantized", "kind": "quantize"}],
        "cluster": {"workers": 0},
    }
    with show.progress_apart(as_json):
        results = run(make_recipe(values, "options", overrides), "options")
    show.results(results, as_json)
