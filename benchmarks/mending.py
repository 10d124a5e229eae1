"""What compensation and batch-norm re-estimation are each worth: mAP50 right after a cut, with and without them.

Run: python benchmarks/mending.py runs/bccd/stages/sparse data/bccd
"""

import argparse
from dataclasses import replace
from typing import Any

from measure import publish_result

from yolo_dist.bundle import open_bundle
from yolo_dist.compress.pruning import PruneConfig, make_plan
from yolo_dist.compress.pruning.trials import TrialSetup, evaluate_plans
from yolo_dist.data.card import find_card
from yolo_dist.data.shards import open_split

PERCENTS = (0.3, 0.5, 0.6, 0.7, 0.8, 0.85)
IMAGES = 64
MENDING: dict[str, dict[str, Any]] = {
    "neither": {"compensate": False},
    "compensation": {"compensate": True},
    f"re-estimation on {IMAGES} images": {"compensate": False, "reestimate_images": IMAGES},
    "both": {"compensate": True, "reestimate_images": IMAGES},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="folder of a bundle that was trained sparse")
    parser.add_argument("shards", help="path or URL its dataset was converted to")
    parser.add_argument("--method", default="normal")
    arguments = parser.parse_args()
    validation, train = (open_split(arguments.shards, split) for split in ("val", "train"))
    bundle = open_bundle(arguments.model)
    detections = find_card(validation.manifest.dataset).max_detections
    setup = TrialSetup(bundle.network, bundle.image_size, validation, train, max_detections=detections)
    plans = [
        make_plan(bundle.network, PruneConfig(method=arguments.method, percent=percent)) for percent in (0.0, *PERCENTS)
    ]
    rows: dict[str, list[float]] = {}
    for name, choices in MENDING.items():
        outcomes = evaluate_plans(replace(setup, **choices), plans)
        rows[name] = [round(outcome.map50, 3) for outcome in outcomes]
        print(f"{name:28} " + "  ".join(f"{value:.3f}" for value in rows[name]))
    content = {
        "what": f"mAP50 on {len(validation)} validation images right after method {arguments.method}, not fine-tuned",
        "dataset": validation.manifest.dataset,
        "percents": [0.0, *PERCENTS],
        "parameters": [outcome.parameters for outcome in outcomes],
        "map50": rows,
    }
    print(f"written to {publish_result('mending', content)}")


if __name__ == "__main__":
    main()
