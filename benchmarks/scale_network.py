"""Seconds in which a ring of nodes adds up gradients: on paper, and between machines whose links are slow.

The machines are network namespaces on this one (`tests/drills/machines.py`), each with a link that lets a bounded rate
out, so that the link is the limit and not the processor that all of them share.

Run: python benchmarks/scale_network.py, as root on Linux; prints JSON
"""

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
import torch.distributed

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "drills"))
from machines import NETWORK, Machine, go_inside, run, why_not

FLOAT_BYTES = 4
FIRST_BUCKET, BUCKET = 1 << 20, 25 << 20
"""Bytes of DistributedDataParallel's first message of gradients, and of the others."""
LINK = 200_000_000
"""Bits a second that each machine of the measurement may send."""
PARAMETERS = 8_674_496
"""Of yolov3-tiny with three classes."""
SMALL = (1, 64)
"""Floats of messages whose bytes take no time: less than one for each machine, and some for each."""
SMALL_MESSAGES, SMALL_ROUNDS, LARGE_ROUNDS = 50, 10, 5


def ring_seconds(size: float, nodes: int, bytes_per_second: float, latency: float, messages: int = 1) -> float:
    """Seconds of an all-reduce in a ring (Patarasuk & Yuan 2009, "Bandwidth optimal all-reduce algorithms").

    Args:
        size: bytes that are added up.
        nodes: how many take part.
        bytes_per_second: that a node sends.
        latency: seconds from a node to the next.
        messages: into which the bytes are divided.
    """
    return 2 * (nodes - 1) / nodes * size / bytes_per_second + messages * 2 * (nodes - 1) * latency


def gradient_messages(size: float) -> int:
    """Messages into which DistributedDataParallel divides so many bytes of gradients, where layers are small."""
    return 1 + max(0, -(-int(size - FIRST_BUCKET) // BUCKET))


def forecast(latency: float) -> list[dict[str, Any]]:
    """Seconds of the gradients of a small and a large network."""
    found = []
    for parameters in (PARAMETERS, 64_000_000):
        size = FLOAT_BYTES * parameters
        for nodes in (10, 100, 1000):
            seconds = {
                f"{gigabits} Gbit/s": round(
                    ring_seconds(size, nodes, gigabits * 1e9 / 8, latency, gradient_messages(size)), 4
                )
                for gigabits in (1, 10, 100)
            }
            found.append({"parameters": parameters, "nodes": nodes, "latency_seconds": latency, "seconds": seconds})
    return found


def measured() -> dict[str, Any]:
    """What machines of this one take, beside the forecast; or why there are none."""
    if reason := why_not():
        return {"skipped": reason}
    ran = subprocess.run([sys.executable, __file__], stdout=subprocess.PIPE, text=True, check=True)
    rows: list[dict[str, float]] = json.loads(ran.stdout)
    for row in rows:
        predicted = ring_seconds(FLOAT_BYTES * PARAMETERS, int(row["nodes"]), LINK / 8, latency=0)
        row |= {"predicted_seconds": round(predicted, 3), "measured_to_predicted": round(row["seconds"] / predicted, 3)}
        for floats in SMALL:
            steps = 2 * (row["nodes"] - 1)
            row[f"milliseconds_a_step_of_{floats}_floats"] = round(row.pop(str(floats)) / steps * 1e3, 3)
        print(row)
    return {"parameters": PARAMETERS, "bits_per_second": LINK, "rows": rows}


def machines_of(count: int, folder: Path) -> list[Machine]:
    """Machines with slow links."""
    environment = {"GLOO_SOCKET_IFNAME": "eth0", "OMP_NUM_THREADS": "1"}
    machines = [Machine(f"ring{number}", number, folder / str(number), environment) for number in range(1, count + 1)]
    for machine in machines:
        machine.connect()
        shaping = ("tbf", "rate", f"{LINK}bit", "burst", "128kb", "latency", "400ms")
        run("tc", "-n", machine.name, "qdisc", "add", "dev", "eth0", "root", *shaping)
    return machines


def sum_of(size: int, folder: Path) -> dict[str, float]:
    """Seconds of a group of so many machines."""
    machines = machines_of(size, folder)
    processes = [
        machine.start(sys.executable, __file__, "--rank", str(rank), "--size", str(size), "--out", str(folder / "out"))
        for rank, machine in enumerate(machines)
    ]
    codes = [process.wait(timeout=300) for process in processes]
    for machine in machines:
        machine.disconnect()
    if any(codes):
        raise RuntimeError((folder / "1" / "output.log").read_text())
    found: dict[str, float] = json.loads((folder / "out").read_text())
    return found


def take_part(rank: int, size: int, out: Path) -> None:
    """One machine's part."""
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", f"tcp://{NETWORK}.1:29500", rank=rank, world_size=size)
    # the fastest of some rounds: other programs on this machine only add to it
    small = {
        floats: min(seconds(floats, SMALL_MESSAGES) for _ in range(SMALL_ROUNDS)) / SMALL_MESSAGES for floats in SMALL
    }
    large = min(seconds(PARAMETERS) for _ in range(LARGE_ROUNDS))
    if rank == 0:
        out.write_text(json.dumps({"nodes": size, "seconds": round(large, 3), **small}))
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()


def seconds(floats: int, times: int = 1) -> float:
    """Seconds of so many all-reduces, one after the other: none begins before its neighbour has ended the last."""
    tensor = torch.zeros(floats)
    torch.distributed.barrier()
    start = time.perf_counter()
    for _ in range(times):
        torch.distributed.all_reduce(tensor)
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rank", type=int)
    parser.add_argument("--size", type=int)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    if arguments.rank is not None:
        take_part(arguments.rank, arguments.size, arguments.out)
        return
    go_inside()
    with TemporaryDirectory() as folder:
        rows = [sum_of(size, Path(folder) / f"of-{size}") for size in (2, 3, 4)]
    print(json.dumps(rows))


if __name__ == "__main__":
    main()
