"""How long the network alone takes for one image on this machine's CPU."""

import copy
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from statistics import median

import torch
from torch import Tensor

from yolo_dist.darknet.network import Network
from yolo_dist.evaluate.inference import inference

WARM_UP = 1
FEWEST_REPEATS = 2
FILTER_DIMENSIONS = 4


def network_latency_ms(
    network: Network, image_size: tuple[int, int], *, threads: int = 1, repeats: int = 20, seconds: float = 3.0
) -> float:
    """Median time of a forward pass with batch 1, in float32 and channels_last, without decoding.

    Args:
        network: stays as it is.
        image_size: (width, height) of the input in pixels.
        threads: torch's, restored afterwards.
        repeats: passes to measure.
        seconds: time after which fewer repeats are enough, but at least two.
    """
    width, height = image_size
    channels = network.cfg.net.channels
    image = torch.rand(1, channels, height, width).to(memory_format=torch.channels_last)
    with _as_deployed(network) as measured, inference(measured), computing_threads(threads):
        return median_ms(lambda: measured(image), repeats, seconds)


@contextmanager
def _as_deployed(network: Network) -> Iterator[Network]:
    """The network on the CPU, in float32 and channels_last: itself where that costs no more than a change of layout
    (which is undone), so that a large network need not fit into memory twice; else a copy."""
    if any(tensor.device.type != "cpu" or tensor.dtype != torch.float32 for tensor in network.parameters()):
        yield copy.deepcopy(network).to("cpu", torch.float32).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        return
    filters = [weight for weight in network.parameters() if weight.dim() == FILTER_DIMENSIONS and _is_plain(weight)]
    try:
        for weight in filters:
            weight.data = weight.data.contiguous(memory_format=torch.channels_last)
        yield network
    finally:
        for weight in filters:
            weight.data = weight.data.contiguous()


def _is_plain(weight: Tensor) -> bool:
    return weight.is_contiguous() and not weight.is_contiguous(memory_format=torch.channels_last)


@contextmanager
def computing_threads(count: int) -> Iterator[None]:
    """So many threads compute inside it, as many as before afterwards."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def median_ms(work: Callable[[], object], repeats: int, seconds: float) -> float:
    """Median milliseconds of `work`, after a warm-up; fewer repeats, but two, once `seconds` have passed."""
    for _ in range(WARM_UP):
        work()
    times: list[float] = []
    while len(times) < repeats and (len(times) < FEWEST_REPEATS or sum(times) < seconds):
        started = time.perf_counter()
        work()
        times.append(time.perf_counter() - started)
    return 1e3 * median(times)
