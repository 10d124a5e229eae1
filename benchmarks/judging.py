"""A pruned network's first epochs of fine-tuning: with warm-up as of a new network or not, judged by which statistics.

Run: python benchmarks/judging.py runs/bccd/stages/pruned data/bccd
"""

import argparse
from typing import Any

from measure import publish_result

from yolo_dist.bundle import open_bundle
from yolo_dist.data.card import find_card
from yolo_dist.data.shards import open_split
from yolo_dist.evaluate.evaluator import evaluate
from yolo_dist.train.config import TrainConfig
from yolo_dist.train.loop import Trainer

EPOCHS, SHOWN = 60, 3
WARMUPS = {"as a trained network": False, "as a new network": True}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="folder of a pruned bundle")
    parser.add_argument("shards", help="path or URL its dataset was converted to")
    arguments = parser.parse_args()
    train, validation = (open_split(arguments.shards, split) for split in ("train", "val"))
    detections = find_card(validation.manifest.dataset).max_detections
    rows: dict[str, list[dict[str, Any]]] = {}
    for name, new in WARMUPS.items():
        bundle = open_bundle(arguments.model)
        config = TrainConfig(epochs=EPOCHS, nominal_batch=16, augment={"mosaic": 0, "translate": 0.1, "scale": 0.3})
        trainer = Trainer(bundle.network, train, config, bundle.image_size)
        trainer.schedule.new = new
        rows[name] = []
        for _ in range(SHOWN):
            loss = trainer.run_epoch().loss["total"]
            running = evaluate(trainer.average.network, validation, bundle.image_size, max_detections=detections)
            with trainer.judged() as network:
                own = evaluate(network, validation, bundle.image_size, max_detections=detections)
            assert running is not None
            assert own is not None
            row = {"loss": loss, "running": running.metrics.map50, "own": own.metrics.map50}
            rows[name].append({key: round(value, 3) for key, value in row.items()})
            print(f"{name:22} epoch {trainer.epoch}: {rows[name][-1]}")
    content = {
        "what": f"loss, and mAP50 on {len(validation)} validation images with running statistics and with own ones, "
        f"in the first {SHOWN} of {EPOCHS} epochs after a cut",
        "dataset": validation.manifest.dataset,
        "warm-up": rows,
    }
    print(f"written to {publish_result('judging', content)}")


if __name__ == "__main__":
    main()
