"""A search on four nodes of which one is lost: every trial comes to its end, and what trials share is done once."""

import json
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import yaml

TRIALS, LOST_AFTER = 8, 2
NAME = "search-node-lost"


def drill_search(folder: Path, stack: ExitStack) -> dict[str, Any]:
    """Eight trials; a node loses its power, for good, when the first are over."""
    from cluster import DrillCluster

    space = write_space(folder / "project")
    cluster = DrillCluster(folder / "machines", workers=4)
    stack.callback(cluster.end)
    cluster.bring_shards(space.parent)
    began = time.monotonic()
    id = cluster.submit_command(space.parent, "tune", space.name)
    cluster.until_printed(id, f"{LOST_AFTER} of {TRIALS} trials")
    cluster.workers[-1].lose()
    first = cluster.until_over(id)
    again = 0
    while cluster.job(id)["status"] != "SUCCEEDED" and again < 2:
        again += 1
        id = cluster.submit_command(space.parent, "tune", space.name, "--resume")
        cluster.until_over(id)
    asked = cluster.at_work(space.parent, "tune", space.name, "--resume", "--json")
    found = json.loads(asked.stdout)
    ran = [(trial["id"], row["id"]) for trial in found["trials"] for row in trial["stages"] if not row["cached"]]
    right = {
        "every trial finished": [trial["state"] for trial in found["trials"]] == ["finished"] * TRIALS,
        "every trial once": len({trial["id"] for trial in found["trials"]}) == TRIALS,
        "shared stage once": sum(stage == "base" for _, stage in ran) <= 1 and found["stages_run"] == 1 + 2 * TRIALS,
        "a front and a suggestion": found["knee"] in found["front"],
    }
    return {
        "fault": NAME,
        "ok": cluster.job(id)["status"] == "SUCCEEDED" and all(right.values()),
        "first_job": first["status"],
        "submitted_again": again,
        "seconds": round(time.monotonic() - began),
        "stages_run": found["stages_run"],
        "stages_taken": found["stages_taken"],
        "right": right,
    }


def write_space(project: Path) -> Path:
    """A working directory with a recipe whose first stage all trials share, and how much they cut after it."""
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    import tiny

    project.mkdir(parents=True)
    (project / "tiny.cfg").write_text(tiny.CFG)
    (project / "tiny.yaml").write_text(tiny.CARD)
    recipe = tiny.recipe_values(project)
    recipe |= {"dataset": "tiny.yaml", "model": "tiny.cfg", "shards": "s3://bucket/tiny", "cluster": {"workers": 1}}
    (project / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    values = {
        "name": "tiny-search",
        "recipe": "recipe.yaml",
        "space": {"pruned.percent": {"grid": [number / 10 for number in range(1, TRIALS + 1)]}},
        "objectives": {"map50": "maximise", "parameters": "minimise"},
        "searcher": "grid",
        "max_failures": 4,
        "storage": "s3://bucket/searches",
    }
    space = project / "space.yaml"
    space.write_text(yaml.safe_dump(values))
    return space
