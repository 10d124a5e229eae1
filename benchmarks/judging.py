"""A network's first epochs in the next stage: with warm-up as of a new network or not, judged by which statistics.

Run: python benchmarks/judging.py runs/bccd/stages/pruned data/bccd
"""

import argparse

from measure import publish_result

from yolo_dist.bundle import open_bundle
from yolo_dist.data.card import find_card
from yolo_dist.data.loader import image_batches
from yolo_dist.data.shards import open_split
from yolo_dist.evaluate.evaluator import evaluate
from yolo_dist.train.config import TrainConfig
from yolo_dist.train.loop import Trainer
from yolo_dist.train.statistics import settled_statistics

EPOCHS, SHOWN = 60, 3
WARMUPS = {"as a trained network": False, "as a new network": True}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="folder of a bundle")
    parser.add_argument("shards", help="path or URL its dataset was converted to")
    parser.add_argument("--name", default="pruned", help="of the result's file")
    arguments = parser.parse_args()
    train, validation = (open_split(arguments.shards, split) for split in ("train", "val"))
    detections = find_card(validation.manifest.dataset).max_detections
    rows: dict[str, list[dict[str, float]]] = {}
    for name, new in WARMUPS.items():
        bundle = open_bundle(arguments.model)
        config = TrainConfig(epochs=EPOCHS, nominal_batch=16, augment={"mosaic": 0, "translate": 0.1, "scale": 0.3})
        trainer = Trainer(bundle.network, train, config, bundle.image_size)
        trainer.schedule.new = new
        rows[name] = []
        for _ in range(SHOWN):
            loss = trainer.run_epoch().loss["total"]
            running = evaluate(trainer.average.network, validation, bundle.image_size, max_detections=detections)
            plain = image_batches(train, bundle.image_size, config.statistics_images)
            with settled_statistics(trainer.average.network, plain, trainer.workers):
                apart = evaluate(trainer.average.network, validation, bundle.image_size, max_detections=detections)
            with trainer.judged() as network:
                own = evaluate(network, validation, bundle.image_size, max_detections=detections)
            row: dict[str, float] = {"loss": loss}
            for key, found in (("running", running), ("plain images", apart), ("own", own)):
                assert found is not None
                row |= {key: found.metrics.map50, f"{key}, mAP": found.metrics.map}
            rows[name].append({key: round(value, 3) for key, value in row.items()})
            print(f"{name:22} epoch {trainer.epoch}: {rows[name][-1]}")
    content = {
        "what": f"loss, mAP50 and mAP on {len(validation)} validation images with running statistics, with own ones "
        f"of plain images and of augmented ones, in the first {SHOWN} of {EPOCHS} epochs of a stage that goes on",
        "dataset": validation.manifest.dataset,
        "warm-up": rows,
    }
    name = f"judging-{arguments.name}"
    print(f"written to {publish_result(name, content)}")


if __name__ == "__main__":
    main()
