"""The loader beside bare decoding and beside other loaders, on the same JPEGs and with the same work on each image.

A process is one that trains: it asks for batches of 16 and does nothing with them. It is held on a core of its own
together with all threads and processes that its loader starts, so that one process has one core and two have two;
two share the samples as ranks 0 and 1. Only Ray Data has one consumer whose tasks run on both cores. Rates are those
of whole epochs, over all processes, with the files in the page cache. They are given a second, and a second of
CPU time of the processes and all that they start, which other programs disturb less.

Every contestant calls the same functions of this project for an image: decoding at the fraction of the size that the
input allows, letterbox or mosaic with the default augmentation, OpenCV with one thread. Ours writes each into its
batch, the peers' images are stacked. The limit is bare decoding and resizing of bytes in memory; it is given for
decoding at the same fraction and for decoding whole. A race before
finds each peer's best setting: how many DataLoader workers share the core of a process, and for Ray Data whether
its tasks decode or the threads of its consumer. All run with the memory allocator's settings of our workers.

Run: make bench-peers, or python benchmarks/loader_peers.py [--source FOLDER] [--streaming-python INTERPRETER]
"""

import argparse
import shlex
import sys
import tempfile
from pathlib import Path
from typing import Any

from measure import Race, publish_result, show
from peer_contestants import (
    prepare_ours,
    prepare_ray,
    prepare_reduced,
    prepare_streaming,
    prepare_torch,
    prepare_webdataset,
    prepare_whole,
    write_streaming,
)
from peer_samples import SIZE, make_shards, write_files
from peer_teams import Contestant, Helper, compete, versions

ROOT = Path(__file__).resolve().parents[1]
DATA = ROOT.parent / "shared" / "data"
STREAMING_PYTHON = ROOT / ".venv-streaming" / "bin" / "python"
WHOLE, LIMIT, OURS = "bare, decoded whole", "bare, decoded as ours", "ours"
WORKERS = (0, 1)


def contestants(streaming_python: Path) -> dict[str, Contestant]:
    """All that race, the limits first."""
    return {
        WHOLE: Contestant(prepare_whole),
        LIMIT: Contestant(prepare_reduced),
        OURS: Contestant(prepare_ours),
        "PyTorch DataLoader": Contestant(prepare_torch, WORKERS),
        "webdataset": Contestant(prepare_webdataset, WORKERS),
        "mosaicml-streaming": Contestant(prepare_streaming, WORKERS, python=streaming_python),
        "Ray Data": Contestant(prepare_ray, (0, 4), together=True),
    }


def best_settings(racing: dict[str, Contestant], folder: Path, processes: int, rounds: int) -> dict[str, int]:
    """The fastest setting of each contestant, for the letterbox."""
    tried = {
        f"{name} {setting}": (contestant, setting)
        for name, contestant in racing.items()
        for setting in contestant.settings
        if len(contestant.settings) > 1
    }
    result, _ = compete(tried, folder, False, processes, rounds)
    show(f"{processes} process(es), settings", result, next(iter(tried)), "images/s")
    settings = {name: contestant.settings[0] for name, contestant in racing.items()}
    for name in sorted(tried, key=result.median):  # the last one of a contestant is its fastest
        contestant_name, _, setting = name.rpartition(" ")
        settings[contestant_name] = int(setting)
    return settings


def measured(
    racing: dict[str, Contestant], settings: dict[str, int], folder: Path, mosaic: bool, processes: int, rounds: int
) -> dict[str, Any]:
    """One race as the results have it."""
    title = f"{processes} process(es), {'mosaic and all augmentation' if mosaic else 'letterbox'}"
    chosen = {name: (contestant, settings[name]) for name, contestant in racing.items()}
    by_clock, by_cpu = compete(chosen, folder, mosaic, processes, rounds)
    show(title, by_clock, OURS, "images/s")
    show(f"{title}, CPU time", by_cpu, OURS, "images/s per core")
    return {
        "images_per_second": by_clock.as_json(),
        "images_per_cpu_second": by_cpu.as_json(),
        "settings": {name: settings[name] for name, contestant in racing.items() if len(contestant.settings) > 1},
        "ours": compared(by_clock),
        "ours_by_cpu_time": compared(by_cpu),
    }


def compared(result: Race) -> dict[str, Any]:
    """Ours as a multiple of the limit and of the best peer."""
    peer = max((name for name in result.rates if name not in (WHOLE, LIMIT, OURS)), key=result.median)
    return {
        "of_limit": round(result.ratio(OURS, LIMIT), 3),
        "of_limit_decoding_whole": round(result.ratio(OURS, WHOLE), 3),
        "of_best_peer": round(result.ratio(OURS, peer), 3),
        "best_peer": peer,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", type=Path, default=DATA if DATA.is_dir() else None, help="folder with JPEGs below")
    parser.add_argument("--images", type=int, default=2000, help="how often the JPEGs are repeated")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--without", nargs="*", default=[], help="contestants to leave out")
    parser.add_argument("--streaming-python", type=Path, default=STREAMING_PYTHON, help="with mosaicml-streaming")
    arguments = parser.parse_args()
    racing = contestants(arguments.streaming_python)
    for name in arguments.without:
        del racing[name]
    races: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        shards = make_shards(arguments.source, arguments.images, folder)
        write_files(shards, folder)
        elsewhere = Helper(arguments.streaming_python)
        own_versions = elsewhere.call(versions, "mosaicml-streaming", "numpy")
        elsewhere.call(write_streaming, folder)
        elsewhere.close()
        for processes in (1, 2):
            settings = best_settings(racing, folder, processes, min(2, arguments.rounds))
            for mosaic in (False, True):
                name = f"{'mosaic' if mosaic else 'letterbox'}, {processes} process(es)"
                races[name] = measured(racing, settings, folder, mosaic, processes, arguments.rounds)
        megabytes = round(sum(len(sample.image) for sample in shards) / 1e6)
    path = publish_result(
        "loader_peers",
        {
            "what": f"{len(shards)} JPEGs, {megabytes} MB, into {SIZE[0]}×{SIZE[1]}; each process on a core of its own",
            "command": shlex.join(["python", *sys.argv]),
            "peers": [
                *versions("torch", "webdataset", "ray"),
                f"{', '.join(own_versions)} in an environment of its own",
            ],
            "rounds": arguments.rounds,
            "races": races,
        },
    )
    print(f"written to {path}")


if __name__ == "__main__":
    main()
