"""What shared stages save: a grid of S sparsity factors and P percents with and without sharing, on drawn scenes.

Networks and epochs are so few that starting processes weighs more than in earnest; stages that were run and the
seconds inside them do not depend on that. Each trial trains in its own process.

Run: python benchmarks/search_sharing.py
"""

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

from measure import publish_result

from yolo_dist.config import validate
from yolo_dist.data.card import find_card
from yolo_dist.data.conversion.convert import convert
from yolo_dist.shipped import shipped_folder
from yolo_dist.storage import location
from yolo_dist.tune.search import search
from yolo_dist.tune.space import Space

SMALL = ("model={zoo: yolov3-tiny, width: 0.1}", "image_size=64", "cluster.workers=0", "pruned.method=slim")


def space(folder: Path, factors: int, percents: int, epochs: int, shared: bool) -> Space:
    """Factors by powers of two, percents evenly spread."""
    return validate(
        Space,
        {
            "name": "shared" if shared else "alone",
            "recipe": str(shipped_folder("launch") / "shapes.yaml"),
            "overrides": [
                *SMALL,
                f"shards={folder / 'shapes'}",
                *(f"{stage}.epochs={epochs}" for stage in ("base", "sparse", "tuned")),
            ],
            "space": {
                "sparse.sparsity.factor": {"grid": [1e-3 * 2**power for power in range(factors)]},
                "pruned.percent": {"grid": [round((n + 1) / (percents + 1), 3) for n in range(percents)]},
            },
            "objectives": {"map50": "maximise", "parameters": "minimise"},
            "stage": "tuned",
            "searcher": "grid",
            "share_stages": shared,
            "storage": str(folder),
        },
        "benchmark",
    )


def measured(searched: Space) -> dict[str, Any]:
    """One search: what it ran, and how long it took."""
    began = time.monotonic()
    results = search(searched)
    assert all(record.state == "finished" for record in results.trials)
    return {
        "trials": len(results.trials),
        "stages_run": results.stages_run,
        "stages_taken": results.stages_taken,
        "stage_seconds": results.seconds_run,
        "seconds": round(time.monotonic() - began, 1),
        "map50": {record.id: record.measured["map50"] for record in results.trials},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--factors", type=int, default=3)
    parser.add_argument("--percents", type=int, default=4)
    parser.add_argument("--epochs", type=int, default=2)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        for split in ("train", "val"):
            convert(find_card("shapes"), "-", location(folder / "shapes"), split)
        found = {
            name: measured(space(folder, options.factors, options.percents, options.epochs, name == "shared"))
            for name in ("shared", "alone")
        }
    found["the same accuracies"] = found["shared"].pop("map50") == found["alone"].pop("map50")
    for name, values in found.items():
        print(name, values)
    print(publish_result("search_sharing", {"factors": options.factors, "percents": options.percents, **found}))


if __name__ == "__main__":
    main()
