"""Exported files: bytes, and time of one image at 416 px, float32 beside int8, for every backbone of the zoo.

In ONNX Runtime with one and two threads, and in OpenVINO where it is installed (`pip install openvino`; float parts in
float32 there too, not in bfloat16). Weights are those before training and ranges are of noise: neither bytes nor time
depend on what was learnt. int8 in the form that runtimes are fast in: `symmetric: weights`, `per_channel`,
`fold_batchnorm`. Contestants take turns, and ratios are medians over the rounds; with one thread, time is the
processor's, so that other programs count for little.

Run: python benchmarks/quantization.py [BACKBONE …]
"""

import argparse
import importlib.util
import json
import os
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"

import numpy as np
import onnx
import onnxruntime
import torch
from measure import publish_result, race

from yolo_dist.bundle import Bundle
from yolo_dist.compress.quantization import QuantizationConfig, calibrate, quantize
from yolo_dist.darknet.network import Network, initialize
from yolo_dist.darknet.zoo import ZOO, zoo_cfg
from yolo_dist.export.onnx import IMAGES, ExportConfig, export_onnx
from yolo_dist.export.runtime import session_options

SIZE = (416, 416)
ROUNDS = 7
FAST = QuantizationConfig(symmetric="weights", per_channel=True, fold_batchnorm=True)
INSTRUCTIONS = ("avx2", "avx512f", "avx_vnni", "avx512_vnni", "amx_int8", "avx512_bf16", "amx_bf16")
IMAGE = np.random.default_rng(0).integers(0, 256, (1, 3, SIZE[1], SIZE[0]), np.uint8)

Work = Callable[[], int]


def instructions() -> list[str]:
    """Which of the instructions that matter here the processor has."""
    flags = Path("/proc/cpuinfo").read_text().partition("flags")[2].partition("\n")[0].split()
    return [name for name in INSTRUCTIONS if name in flags]


def export_both(name: str, folder: Path) -> dict[str, Path]:
    """A backbone for 80 classes in both formats."""
    network = Network(zoo_cfg(name, image_size=SIZE))
    initialize(network, seed=0)
    quantized = quantize(network.eval(), FAST)
    calibrate(quantized, [torch.rand(1, 3, SIZE[1], SIZE[0])], "minmax")
    files = {}
    for format_, model in (("onnx", network), ("onnx-int8", quantized)):
        bundle = Bundle(model, tuple(map(str, range(80))), SIZE)
        files[format_] = folder / f"{format_}.onnx"
        onnx.save(export_onnx(bundle, ExportConfig.model_validate({"format": format_})), files[format_])
    return files


def in_onnx_runtime(file: Path, threads: int) -> Work:
    """One image through a file; what the runtime made of the graph lies beside it."""
    options = session_options(threads)
    options.optimized_model_filepath = str(file.with_suffix(".optimised"))
    session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])

    def work() -> int:
        session.run(None, {IMAGES: IMAGE})
        return 1

    return work


def in_openvino(file: Path, threads: int) -> Work:
    """One image through a file in OpenVINO."""
    import openvino

    model = openvino.Core().read_model(file)
    model.reshape(IMAGE.shape)
    hints = {"INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32"}
    request = openvino.compile_model(model, "CPU", hints).create_infer_request()

    def work() -> int:
        request.infer({0: IMAGE})
        return 1

    return work


def operators(file: Path) -> dict[str, int]:
    """What ONNX Runtime made of the convolutions and of the numbers between them."""
    counts = Counter(node.op_type for node in onnx.load(file.with_suffix(".optimised")).graph.node)
    return {name: counts[name] for name in ("QLinearConv", "Conv", "QuantizeLinear", "DequantizeLinear")}


def measure(name: str, rounds: int) -> dict[str, Any]:
    """A backbone's row."""
    runtimes = {"onnxruntime": in_onnx_runtime}
    if importlib.util.find_spec("openvino"):
        runtimes["openvino"] = in_openvino
    with TemporaryDirectory() as folder:
        files = export_both(name, Path(folder))
        sizes = {format_: file.stat().st_size for format_, file in files.items()}
        row: dict[str, Any] = {
            "bytes": sizes,
            "int8_bytes_of_float": round(sizes["onnx-int8"] / sizes["onnx"], 3),
        }
        for runtime, start in runtimes.items():
            for threads in (1, 2):
                clock = time.process_time if threads == 1 else time.perf_counter
                contestants = {format_: start(file, threads) for format_, file in files.items()}
                result = race(contestants, rounds, warm_up=2, clock=clock)
                row[f"{runtime}, {threads} threads"] = {
                    "float_ms": round(1e3 / result.median("onnx"), 2),
                    "int8_ms": round(1e3 / result.median("onnx-int8"), 2),
                    "int8_is_faster": round(result.ratio("onnx-int8", "onnx"), 2),
                }
        row["operators in onnxruntime"] = operators(files["onnx-int8"])
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("backbones", nargs="*", default=ZOO)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    print(f"the processor has {', '.join(instructions())}")
    rows = {}
    for name in options.backbones:
        rows[name] = measure(name, options.rounds)
        print(name, json.dumps(rows[name], indent=2), flush=True)
    content = {
        "what": "exported files at 416 px, batch 1, boxes decoded; random weights",
        "instructions": instructions(),
        "backbones": rows,
    }
    print(f"written to {publish_result('quantization', content)}")


if __name__ == "__main__":
    main()
