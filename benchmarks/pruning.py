"""Pruning: time and memory on yolov4, what fewer operations are worth in time, and Torch-Pruning beside it.

Three parts, on one core:
- `prune` on yolov4 at 416 px from a bundle on disk to a proved bundle on disk, everything but evaluation;
- yolov3-tiny at 416 px cut to half of its operations with channels rounded to multiples: how much of the ideal
  speed-up is there, network alone;
- Torch-Pruning's BN-scale pruner on the same networks, percent and importance (|γ|, over all layers): what is left,
  how long it takes, and whether the result can be saved without pickle.

γ are drawn uniformly from 0..1.5, weights as for training from scratch: nothing here depends on what was learnt.

Run: python benchmarks/pruning.py
"""

import argparse
import json
import multiprocessing
import os
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"

import torch
from measure import peak_memory, publish_result
from plain_detector import PlainDetector
from safetensors.torch import load_file, save_file

from yolo_dist.bundle import Bundle, open_bundle
from yolo_dist.compress.graph import ChannelGraph
from yolo_dist.compress.pruning import PruneConfig, make_plan, prune
from yolo_dist.compress.pruning.carry_out import carry_out
from yolo_dist.compress.pruning.prune import choose_plan
from yolo_dist.compress.sparsity import batch_norm
from yolo_dist.darknet.network import Network, initialize
from yolo_dist.darknet.shapes import count_macs, count_parameters
from yolo_dist.darknet.zoo import zoo_cfg
from yolo_dist.evaluate.latency import network_latency_ms

SIZE = (416, 416)
PERCENT = 0.5
LARGEST_GAMMA = 1.5
PROOF_IMAGES = 2
ROUNDS = 5


def make_network(name: str) -> Network:
    """A backbone for 80 classes with weights as before training and drawn γ."""
    network = Network(zoo_cfg(name, image_size=SIZE))
    initialize(network, seed=0)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for layer in ChannelGraph.from_cfg(network.cfg).convolutions():
            batch_norm(network, layer).weight.uniform_(0, LARGEST_GAMMA, generator=generator)
    return network.eval()


def yolov4(folder: Path) -> dict[str, Any]:
    """Seconds and peak memory of a cut, from disk to disk, beyond what a process with torch has before."""
    network = make_network("yolov4")
    Bundle(network, tuple(map(str, range(80))), SIZE).save(folder / "start")
    weights = (folder / "start" / "model.weights").stat().st_size
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        measured = pool.apply(cut, (folder,))
    return {
        "seconds": round(measured["seconds"], 2),
        "model_bytes": weights,
        "peak_bytes": measured["peak"],
        "times_the_model": round(measured["peak"] / weights, 2),
        "parameters": measured["parameters"],
        "max_abs_difference": measured["difference"],
    }


def cut(folder: Path) -> dict[str, Any]:
    """Prune the bundle in a folder as the command does; what it took."""
    torch.set_num_threads(1)
    images = torch.rand(PROOF_IMAGES, 3, SIZE[1], SIZE[0])
    torch.nn.Conv2d(3, 8, 3)(images)  # what torch itself sets up is not the model's
    before = peak_memory()
    started = time.perf_counter()
    bundle = open_bundle(folder / "start")
    pruned = prune(bundle.network, PruneConfig(method="slim", percent=PERCENT, force=True), images, SIZE)
    bundle.followed_by(pruned.network, pruned.lineage).save(folder / "pruned")
    return {
        "seconds": time.perf_counter() - started,
        "peak": peak_memory() - before,
        "parameters": [pruned.proof.parameters.before, pruned.proof.parameters.after],
        "difference": pruned.proof.max_abs_difference,
    }


def speed_up() -> dict[str, Any]:
    """yolov3-tiny at half of its operations: speed-up as a share of the ideal, by what channels are rounded to."""
    network = make_network("yolov3-tiny")
    rows: dict[str, Any] = {}
    for multiple in (1, 8, 32):
        config = PruneConfig(method="normal", target_macs=0.5, round_to=multiple)
        compact = carry_out(network, choose_plan(network, config, SIZE)).network
        ideal = count_macs(network.cfg, SIZE) / count_macs(compact.cfg, SIZE)
        pairs = [(network_latency_ms(network, SIZE), network_latency_ms(compact, SIZE)) for _ in range(ROUNDS)]
        reached = median(before / after for before, after in pairs)
        rows[f"round_to {multiple}"] = {
            "latency_ms": [round(median(column), 2) for column in zip(*pairs, strict=True)],
            "fewer_operations": round(ideal, 3),
            "speed_up": round(reached, 3),
            "share_of_ideal": round(reached / ideal, 3),
        }
    return rows


def beside_torch_pruning(name: str, folder: Path) -> dict[str, Any]:
    """Ours and Torch-Pruning's cut of one network at one percent by |γ| over all layers."""
    import torch_pruning

    network = make_network(name)
    started = time.perf_counter()
    compact = carry_out(network, make_plan(network, PruneConfig(method="slim", percent=PERCENT, scope="full"))).network
    ours = time.perf_counter() - started
    Bundle(compact, tuple(map(str, range(80))), SIZE).save(folder / name)
    assert count_parameters(open_bundle(folder / name).network.cfg) == count_parameters(compact.cfg)

    plain = PlainDetector(network)
    image = torch.rand(1, 3, SIZE[1], SIZE[0])
    heads = [network.layers[feeder].conv for feeder in network.cfg.head_convolutions.values()]
    started = time.perf_counter()
    pruner = torch_pruning.pruner.BNScalePruner(
        plain,
        image,
        importance=torch_pruning.importance.BNScaleImportance(group_reduction="max", normalizer=None),
        global_pruning=True,
        pruning_ratio=PERCENT,
        ignored_layers=heads,
    )
    pruner.step()
    theirs = time.perf_counter() - started
    macs, parameters = torch_pruning.utils.count_ops_and_params(plain, image)
    save_file(plain.state_dict(), folder / "theirs.safetensors")
    return {
        "ours": {
            "parameters": count_parameters(compact.cfg),
            "macs": count_macs(compact.cfg, SIZE),
            "seconds": round(ours, 3),
            "saved_without_pickle": True,
        },
        "torch_pruning": {
            "version": torch_pruning.__version__,
            "parameters": int(parameters),
            "macs": int(macs),
            "seconds": round(theirs, 3),
            "saved_without_pickle": _loads(make_network(name), folder / "theirs.safetensors"),
        },
    }


def _loads(network: Network, state: Path) -> bool:
    """Whether a state without pickled code fits the class it came from."""
    try:
        PlainDetector(network).load_state_dict(load_file(state))
    except RuntimeError:
        return False
    return True


def main() -> None:
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        content = {
            "what": "pruning at 416 px, one thread; MACs of the peer's table count its own way",
            "yolov4": yolov4(folder),
            "yolov3-tiny at half of its operations": speed_up(),
            f"percent {PERCENT} beside Torch-Pruning": {
                network: beside_torch_pruning(network, folder) for network in ("yolov3-tiny", "yolov3")
            },
        }
    print(json.dumps(content, indent=2))
    print(f"written to {publish_result('pruning', content)}")


if __name__ == "__main__":
    main()
