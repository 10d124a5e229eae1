"""What quantisation costs in training: a step's time and memory against the float step of the same network.

Both train yolov3-tiny at 416 px with batch 8 on the same images, one computing thread, bfloat16 where it is fast.
Time is the process's own on one core; memory is what a process has at its peak beyond what it had before training.

Run: python benchmarks/quantized_training.py
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

from generated import SIZE, make_network, make_shards
from measure import peak_memory, publish_result, race, show

from yolo_dist.compress.quantization import QuantizedTrainingConfig, calibrate, quantize
from yolo_dist.data.augment import AugmentConfig
from yolo_dist.data.loader import image_batches
from yolo_dist.data.shards import ShardSet
from yolo_dist.freed_memory import keep_freed_memory
from yolo_dist.train.config import TrainConfig
from yolo_dist.train.loop import Trainer
from yolo_dist.train.quantized import quantized_start
from yolo_dist.train.workers import use_threads

BATCH = 8
IMAGES = 16
FLOAT = "float"
SCHEMES: dict[str, QuantizedTrainingConfig | None] = {
    FLOAT: None,
    "google": QuantizedTrainingConfig(),
    "google, folded, per channel": QuantizedTrainingConfig(symmetric="weights", per_channel=True, fold_batchnorm=True),
    "google, 4 bits, folded, power of two": QuantizedTrainingConfig(
        weight_bits=4, activation_bits=4, fold_batchnorm=True, power_of_two=True
    ),
    "dorefa": QuantizedTrainingConfig(scheme="dorefa"),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--memory-of", choices=SCHEMES, help="print one contestant's memory, in a process of its own")
    arguments = parser.parse_args()
    use_threads(1)
    keep_freed_memory()
    with tempfile.TemporaryDirectory() as folder:
        shards = make_shards(Path(folder), IMAGES)
        if arguments.memory_of:
            print(json.dumps(memory(arguments.memory_of, shards)))
            return
        trainers = {name: make_trainer(name, shards) for name in SCHEMES}
        result = race(
            {name: partial(one_epoch, trainer) for name, trainer in trainers.items()},
            arguments.rounds,
            clock=time.process_time,
        )
        rate = calibration_rate(shards)
    show("training steps' images a second of one core", result, FLOAT, "images/s")
    peaks = {name: memory_apart(name) for name in SCHEMES}
    content = {
        "network": "yolov3-tiny, 416 px, batch 8",
        "images_per_second": result.as_json(),
        "time_ratio": {name: round(1 / result.ratio(name, FLOAT), 2) for name in SCHEMES},
        "memory_mb": {name: round(peak / 1e6) for name, peak in peaks.items()},
        "memory_ratio": {name: round(peak / peaks[FLOAT], 2) for name, peak in peaks.items()},
        "calibration_images_per_second": {name: round(value, 1) for name, value in rate.items()},
    }
    print(json.dumps({key: content[key] for key in ("time_ratio", "memory_ratio", "calibration_images_per_second")}))
    print(f"written to {publish_result('quantized_training', content)}")


def make_trainer(name: str, shards: ShardSet) -> Trainer:
    """A trainer whose ranges follow the batches for half of the rounds and are frozen in the others."""
    config = TrainConfig(
        epochs=10,
        batch_size=BATCH,
        nominal_batch=BATCH,
        augment=AugmentConfig(mosaic=0),
        evaluate_every=0,
        checkpoint_every=10,
        quantization=SCHEMES[name],
    )
    network = quantized_start(make_network(), config, lambda count: image_batches(shards, SIZE, count))
    return Trainer(network, shards, config, SIZE, threads=0)


def one_epoch(trainer: Trainer) -> int:
    """Train once on all images; gives their number."""
    trainer.epoch = min(trainer.epoch, trainer.config.epochs - 1)
    trainer.run_epoch()
    return IMAGES


def memory(name: str, shards: ShardSet) -> int:
    """Bytes at the peak of an epoch beyond what there was before the trainer was made."""
    before = peak_memory()
    one_epoch(make_trainer(name, shards))
    return peak_memory() - before


def memory_apart(name: str) -> int:
    """The same in a process of its own."""
    words = [sys.executable, __file__, "--memory-of", name]
    return int(subprocess.run(words, check=True, capture_output=True, text=True).stdout.splitlines()[-1])


def calibration_rate(shards: ShardSet) -> dict[str, float]:
    """Images a second that calibration measures ranges on, by measure."""
    config = QuantizedTrainingConfig()
    rates: dict[str, float] = {}
    for measure in ("minmax", "mse"):
        network = quantize(make_network(), config.settled)
        began = time.process_time()
        calibrate(network, image_batches(shards, SIZE, IMAGES), measure)
        rates[measure] = IMAGES / (time.process_time() - began)
    return rates


if __name__ == "__main__":
    main()
