"""Faults of a cluster and what becomes of a job: one drill after another, each on a cluster of its own.

Usage: drill.py [--out FILE] [FAULT …]; as root, on Linux. Writes a row a fault: outcome, seconds, what was counted.
"""

import argparse
import io
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack, chdir, redirect_stdout
from pathlib import Path
from typing import Any

import search_drill
import yaml
from machines import go_inside, why_not

EPOCHS, FAULT_AFTER = 20, 3
TOLERANCE = 1e-3
"""Of losses, relative to the undisturbed run's: sums in another order differ by rounding, which grows with training."""


def main() -> None:
    """Run the drills that were asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("faults", nargs="*", default=[*FAULTS, search_drill.NAME])
    parser.add_argument("--out", type=Path)
    asked = parser.parse_args()
    if reason := why_not():
        sys.exit(f"drills cannot run here: {reason}")
    go_inside()
    rows = []
    for name in asked.faults:
        with tempfile.TemporaryDirectory(prefix="drill-", dir="/var/tmp") as folder, ExitStack() as stack:
            searching = name == search_drill.NAME
            row = search_drill.drill_search(Path(folder), stack) if searching else drill(name, Path(folder), stack)
        rows.append(row)
        sys.stdout.write(json.dumps(row) + "\n")
        sys.stdout.flush()
        if asked.out:
            measured = {"date": time.strftime("%Y-%m-%d"), "machine": f"{os.cpu_count()} cores", "rows": rows}
            asked.out.write_text(json.dumps(measured, indent=2, ensure_ascii=False) + "\n")
    sys.exit(any(not row["ok"] for row in rows))


def drill(name: str, folder: Path, stack: ExitStack) -> dict[str, Any]:
    """One fault: the job that it meets, and the same job submitted again where it did not survive."""
    from cluster import DrillCluster

    recipe = write_recipe(folder / "project")
    undisturbed = losses_alone(recipe, folder / "alone")
    cluster = DrillCluster(folder / "machines")
    stack.callback(cluster.end)
    BEFORE.get(name, lambda _: None)(cluster)
    cluster.bring_shards(recipe.parent)
    began = time.monotonic()
    id = cluster.submit(recipe)
    FAULTS[name](cluster, id)
    first = cluster.until_over(id)
    printed = cluster.logs(id)
    again = 0
    while cluster.job(id)["status"] != "SUCCEEDED" and again < 2:
        again += 1
        HEALED.get(name, lambda _: None)(cluster)
        id = cluster.submit(recipe)
        cluster.until_over(id)
    found = count(cluster, folder / "pulled", undisturbed)
    return {
        "fault": name,
        "ok": cluster.job(id)["status"] == "SUCCEEDED" and all(found["right"].values()),
        "first_job": first["status"],
        "submitted_again": again,
        "restarts": printed.count("going on from the last checkpoint ("),
        "reason": "" if first["status"] == "SUCCEEDED" else last_error(printed),
        "seconds": round(time.monotonic() - began),
        **found,
    }


def write_recipe(project: Path) -> Path:
    """A working directory with a training on drawn scenes that takes about a minute, two workers at most."""
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    import tiny

    project.mkdir(parents=True)
    # batch-norm statistics are each worker's own: without them losses do not depend on the number of workers
    (project / "tiny.cfg").write_text(tiny.CFG.replace("batch_normalize=1\n", ""))
    (project / "tiny.yaml").write_text(tiny.CARD)
    values = tiny.recipe_values(project)
    values |= {"dataset": "tiny.yaml", "model": "tiny.cfg", "storage": "s3://bucket/runs", "shards": "s3://bucket/tiny"}
    train = {
        "epochs": EPOCHS,
        "batch_size": 4,
        "nominal_batch": 4,
        "evaluate_every": 0,
        "statistics_images": 0,
        "autocast": False,
    }
    values["stages"] = [{"id": "base", "kind": "train", **train}]
    values["cluster"] = {"workers": [1, 2], "max_failures": 6}
    recipe = project / "recipe.yaml"
    recipe.write_text(yaml.safe_dump(values))
    return recipe


def losses_alone(recipe: Path, folder: Path) -> list[float]:
    """Each epoch's loss on one machine, in this process, undisturbed."""
    import tiny

    from yolo_dist import pipeline
    from yolo_dist.recipe import read_recipe

    folder.mkdir()
    tiny.write_shards(folder)
    places = [f"storage={folder}/runs", f"shards={folder}/shards", "cluster.workers=0"]
    with chdir(recipe.parent), redirect_stdout(io.StringIO()):
        pipeline.run(read_recipe(str(recipe), places))
    return epoch_losses((folder / "runs" / "tiny" / "metrics.jsonl").read_text())


def epoch_losses(lines: str) -> list[float]:
    return [json.loads(line)["loss"]["total"] for line in lines.splitlines()]


def count(cluster: Any, folder: Path, undisturbed: list[float]) -> dict[str, Any]:
    """What is left of the run in the store: nothing lost, nothing doubled."""
    cluster.laptop.ask("yolo-dist", "runs", "pull", "s3://bucket/runs/tiny", "--out", str(folder))
    run = folder / "tiny"
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    results = json.loads((run / "results.json").read_text())
    listed = json.loads(cluster.laptop.ask("yolo-dist", "runs", "list", "s3://bucket/runs", "--json").stdout)[0]
    losses = [line["loss"]["total"] for line in lines]
    worst = max(abs(mine - theirs) / theirs for mine, theirs in zip(losses, undisturbed, strict=False))
    return {
        "largest_difference_of_loss": worst,
        "right": {
            "each epoch once": [line["epoch"] for line in lines] == list(range(1, EPOCHS + 1)),
            "losses of the undisturbed run": worst < TOLERANCE,
            "one result": [result["id"] for result in results] == ["base"],
            "no checkpoint left": listed["unfinished_bytes"] == 0,
            "nobody holds it": listed["holder"] is None,
        },
    }


def last_error(printed: str) -> str:
    lines = [line for line in printed.splitlines() if line.startswith(("error:", "stopped by"))]
    return lines[-1] if lines else (printed.splitlines() or [""])[-1]


def nothing(cluster: Any, id: str) -> None:
    """Two nodes train, and nothing happens."""


def worker_node_lost(cluster: Any, id: str) -> None:
    """A worker's machine loses power, and is back after the job has gone on without it."""
    wait_for_the_middle(cluster, id)
    cluster.workers[-1].lose()


def worker_process_killed(cluster: Any, id: str) -> None:
    """A worker's process is killed, as the kernel does it where memory is short."""
    import psutil

    wait_for_the_middle(cluster, id)
    ours = {process.pid for process in cluster.workers[-1].processes}
    trainers = [
        process
        for process in psutil.process_iter(["cmdline"])
        if any("RayTrainWorker" in word for word in process.info["cmdline"] or [])
        and ours & {parent.pid for parent in process.parents()}
    ]
    assert trainers
    for process in trainers:
        process.kill()


def head_cut_off(cluster: Any, id: str) -> None:
    """The head's network is cut for 20 s."""
    wait_for_the_middle(cluster, id)
    cluster.head.cut()
    time.sleep(20)
    cluster.head.mend()


def store_away(cluster: Any, id: str) -> None:
    """The object store is killed, and started again after 20 s."""
    wait_for_the_middle(cluster, id)
    cluster.store.lose()
    time.sleep(20)
    cluster.start_store()


def slow_node(cluster: Any, id: str) -> None:
    """A worker's network has 1 Mbit/s."""
    from machines import run

    rule = "tbf rate 1mbit burst 32kbit latency 400ms"
    run("ip", "netns", "exec", cluster.workers[-1].name, "tc", *f"qdisc add dev eth0 root {rule}".split())


def full_disk(cluster: Any, id: str) -> None:
    """The workers' disks have no room for a shard; before the job is submitted again they have."""


def small_disks(cluster: Any) -> None:
    """Workers whose disks have no room for a shard."""
    for worker in cluster.workers:
        worker.cache_kibibytes = 4
        worker.lose()
        cluster.start_worker(worker)


def larger_disks(cluster: Any) -> None:
    """Workers with room in their place."""
    for worker in cluster.workers:
        worker.cache_kibibytes = 1 << 19
        worker.lose()
        cluster.start_worker(worker)


def wait_for_the_middle(cluster: Any, id: str) -> None:
    cluster.until_printed(id, f"epoch {FAULT_AFTER}/{EPOCHS}")


FAULTS: dict[str, Callable[[Any, str], None]] = {
    function.__name__.replace("_", "-"): function
    for function in (
        nothing,
        worker_node_lost,
        worker_process_killed,
        head_cut_off,
        store_away,
        slow_node,
        full_disk,
    )
}
BEFORE: dict[str, Callable[[Any], None]] = {"full-disk": small_disks}
HEALED: dict[str, Callable[[Any], None]] = {"full-disk": larger_disks}


if __name__ == "__main__":
    main()
