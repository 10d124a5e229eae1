"""What it is worth that a dataset's missing labels count for nothing: a mixture trained with and without that.

Two datasets of drawn scenes, one of small objects and one of large ones; the triangles of the first and the squares of
the second have no labels. The same network is trained on both, once as mixtures are and once as if whatever has no
label were background, and measured on scenes of each kind with all labels.

Run: python benchmarks/mixture.py
"""

import argparse
import tempfile
from contextlib import nullcontext
from pathlib import Path
from statistics import mean
from unittest.mock import patch

import cv2
from measure import publish_result

from yolo_dist.darknet.network import Network, initialize
from yolo_dist.darknet.zoo import zoo_cfg
from yolo_dist.data import loader
from yolo_dist.data.card import Card, SplitSource
from yolo_dist.data.conversion.convert import convert
from yolo_dist.data.joint_classes import join_classes
from yolo_dist.data.mixture import Mixture, MixturePlan, MixtureSource
from yolo_dist.data.scenes import CLASSES, Scene, SceneSettings
from yolo_dist.data.shards import ShardSet
from yolo_dist.evaluate.evaluator import evaluate
from yolo_dist.freed_memory import keep_freed_memory
from yolo_dist.train.config import TrainConfig
from yolo_dist.train.loop import Trainer
from yolo_dist.train.workers import use_threads

SIZE = (96, 96)
ANCHORS = [(14.0, 14.0), (18.0, 18.0), (22.0, 22.0), (27.0, 27.0), (33.0, 33.0), (40.0, 40.0)]
DIAMETERS = {"small": (16.0, 28.0), "large": (24.0, 44.0)}
UNLABELLED = {"small": "triangle", "large": "square"}
TRAINING, VALIDATION = 400, 200
FORGIVEN, PUNISHED = "what has no label counts for nothing", "what has no label is background"


def settings(name: str, images: int, seed: int) -> SceneSettings:
    return SceneSettings(
        images=images, seed=seed, width=SIZE[0], height=SIZE[1], objects=(2, 4), diameter=DIAMETERS[name]
    )


def partly_labelled(name: str, folder: Path) -> tuple[Card, ShardSet]:
    """A dataset of Darknet's text files in which one class is not labelled."""
    known = [label for label in CLASSES if label != UNLABELLED[name]]
    root = folder / name
    for part in ("images", "labels"):
        (root / part).mkdir(parents=True)
    for index in range(TRAINING):
        scene = Scene(index, settings(name, TRAINING, seed=1))
        cv2.imwrite(str(root / "images" / f"{index}.jpg"), cv2.cvtColor(scene.draw(), cv2.COLOR_RGB2BGR))
        lines = []
        for (left, top, right, bottom), label in zip(scene.boxes.xyxy / SIZE[0], scene.boxes.labels, strict=True):
            if CLASSES[label] in known:
                number = known.index(CLASSES[label])
                lines.append(f"{number} {(left + right) / 2} {(top + bottom) / 2} {right - left} {bottom - top}\n")
        (root / "labels" / f"{index}.txt").write_text("".join(lines))
    split = SplitSource(images="images", annotations="labels")
    card = Card(name=name, format="yolo_txt", classes=tuple(known), splits={"train": split})
    convert(card, root, folder / "shards" / name, "train")
    return card, ShardSet.open(folder / "shards" / name / "train")


def fully_labelled(name: str, folder: Path) -> ShardSet:
    split = SplitSource(generate=settings(name, VALIDATION, seed=2))
    convert(Card(name=name, format="shapes", classes=CLASSES, splits={"val": split}), "-", folder / name, "val")
    return ShardSet.open(folder / name / "val")


def trained(mixture: Mixture, epochs: int, seed: int) -> Network:
    network = Network(zoo_cfg("yolov3-tiny", classes=len(CLASSES), anchors=ANCHORS, image_size=SIZE, width=0.25))
    initialize(network, seed)
    config = TrainConfig.model_validate(
        {"epochs": epochs, "nominal_batch": 16, "seed": seed, "augment": {"mosaic": 0, "translate": 0.1}}
    )
    trainer = Trainer(network, mixture, config, SIZE)
    for _ in range(epochs):
        trainer.run_epoch()
    return trainer.average.network


def accuracy(network: Network, scenes: ShardSet, mixture: Mixture, unlabelled: str) -> dict[str, float]:
    """mAP50 of the class that had no labels on such scenes, and of the others."""
    evaluation = evaluate(network, in_joint_order(scenes, mixture), SIZE)
    assert evaluation is not None
    found = {name: one.map50 or 0.0 for name, one in evaluation.metrics.per_class.items()}
    return {"unlabelled": found.pop(unlabelled), "labelled": mean(found.values())}


def in_joint_order(scenes: ShardSet, mixture: Mixture) -> Mixture:
    """Scenes with all labels, as numbers of the mixture's classes."""
    whole = Card(name="scenes", format="shapes", classes=CLASSES, splits={"val": SplitSource()})
    order = Card(name="order", format="shapes", classes=mixture.classes, splits={"val": SplitSource()})
    joint = join_classes([order, whole])
    source = MixtureSource("scenes", str(scenes.folder), 1.0)
    return Mixture(MixturePlan((source,), type(joint)(joint.names, joint.numbers[1:])), [scenes])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--seeds", type=int, default=3)
    arguments = parser.parse_args()
    keep_freed_memory()
    use_threads(1)
    found: dict[str, dict[str, list[dict[str, float]]]] = {FORGIVEN: {}, PUNISHED: {}}
    with tempfile.TemporaryDirectory() as folder:
        cards, shards = zip(*(partly_labelled(name, Path(folder)) for name in DIAMETERS), strict=True)
        sources = (MixtureSource(card.name, str(own.folder), 0.5) for card, own in zip(cards, shards, strict=True))
        mixture = Mixture(MixturePlan(tuple(sources), join_classes(cards)), shards)
        scenes = {name: fully_labelled(name, Path(folder) / "whole") for name in DIAMETERS}
        for seed in range(arguments.seeds):
            for how, results in found.items():
                all_known = patch.object(loader, "known_classes", lambda *_: None)
                with all_known if how == PUNISHED else nullcontext():
                    network = trained(mixture, arguments.epochs, seed)
                for name, own in scenes.items():
                    results.setdefault(name, []).append(accuracy(network, own, mixture, UNLABELLED[name]))
                    print(how, seed, name, results[name][-1], flush=True)
    content = {"epochs": arguments.epochs, "seeds": arguments.seeds, "map50": found}
    print(f"written: {publish_result('mixture', {'command': 'python benchmarks/mixture.py', **content})}")


if __name__ == "__main__":
    main()
