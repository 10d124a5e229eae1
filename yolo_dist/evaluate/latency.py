"""How long one image takes on this machine's CPU, network and suppression apart."""

import copy
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from statistics import median

import torch
from torch import Tensor

from yolo_dist.darknet.heads import decode_heads
from yolo_dist.darknet.network import Network
from yolo_dist.evaluate.inference import Thresholds, inference
from yolo_dist.evaluate.nms import non_maximum_suppression

WARM_UP = 2
FEWEST_REPEATS = 3


@dataclass(frozen=True)
class Latency:
    """Milliseconds for one image: the network alone, and decoding and suppression of what it predicts."""

    network_ms: float
    nms_ms: float


def measure_latency(network: Network, image: Tensor, *, threads: int = 1, repeats: int = 20) -> Latency:
    """Both parts of a network's latency; see `network_latency_ms` and `nms_latency_ms`."""
    size = (image.shape[-1], image.shape[-2])
    return Latency(
        network_ms=network_latency_ms(network, size, threads=threads, repeats=repeats),
        nms_ms=nms_latency_ms(network, image, threads=threads, repeats=repeats),
    )


def network_latency_ms(
    network: Network, image_size: tuple[int, int], *, threads: int = 1, repeats: int = 20, seconds: float = 3.0
) -> float:
    """Median time of a forward pass with batch 1, in float32 and channels_last, without decoding.

    Args:
        network: measured on a copy.
        image_size: (width, height) of the input in pixels.
        threads: torch's, restored afterwards.
        repeats: passes to measure.
        seconds: time after which fewer repeats are enough, but at least three.
    """
    width, height = image_size
    channels = network.cfg.net.channels
    image = torch.rand(1, channels, height, width).to(memory_format=torch.channels_last)
    measured = _on_cpu(network)
    with inference(measured), _threads(threads):
        return _median_ms(lambda: measured(image), repeats, seconds)


def nms_latency_ms(
    network: Network,
    image: Tensor,
    thresholds: Thresholds | None = None,
    *,
    threads: int = 1,
    repeats: int = 20,
    seconds: float = 3.0,
) -> float:
    """Median time of decoding and suppression after a forward pass.

    Args:
        network: measured on a copy.
        image: a real one, because the time depends on what is found: uint8 RGB [1, 3, H, W].
        thresholds: those of `detect` by default.
        threads: torch's, restored afterwards.
        repeats: to measure.
        seconds: time after which fewer repeats are enough, but at least three.
    """
    limits = thresholds or Thresholds()
    measured = _on_cpu(network)

    def decode_and_suppress(raws: list[Tensor]) -> None:
        decoded = decode_heads(measured.heads, raws)
        non_maximum_suppression(decoded, limits.confidence, limits.nms_iou, limits.max_detections, limits.multi_label)

    with inference(measured), _threads(threads):
        raws = measured(image.cpu().float().div(255))
        return _median_ms(lambda: decode_and_suppress(raws), repeats, seconds)


def _on_cpu(network: Network) -> Network:
    """A copy, so that neither the device nor the memory layout of the original changes."""
    return copy.deepcopy(network).to("cpu", torch.float32).to(memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]


@contextmanager
def _threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _median_ms(work: Callable[[], object], repeats: int, seconds: float) -> float:
    for _ in range(WARM_UP):
        work()
    times: list[float] = []
    while len(times) < repeats and (len(times) < FEWEST_REPEATS or sum(times) < seconds):
        started = time.perf_counter()
        work()
        times.append(time.perf_counter() - started)
    return 1e3 * median(times)
