"""Quantised training beside the loop: first ranges, ranges that follow the batches, and when both settle.

Jacob et al. 2018, §3.1; Krishnamoorthi 2018, §3.2.2 (statistics freeze before the end).
"""

from collections.abc import Callable, Iterable
from functools import partial

import torch
from torch import Tensor

from yolo_dist.compress.pruning.reestimation import batch_norms
from yolo_dist.compress.quantization import QuantizedNetwork, QuantizedTrainingConfig, calibrate, quantize
from yolo_dist.compress.quantization.ranges import MOMENTUM
from yolo_dist.darknet.network import Network
from yolo_dist.errors import AlreadyQuantized, ConfigError
from yolo_dist.freed_memory import return_freed_memory
from yolo_dist.train.config import TrainConfig
from yolo_dist.train.statistics import statistics_of
from yolo_dist.train.workers import Workers


def quantized_start(network: Network, config: TrainConfig, batches: Callable[[int], Iterable[Tensor]]) -> Network:
    """The network that a stage trains: quantised if the stage or the network it starts from is.

    Args:
        network: of the start, initialised if the stage trains from scratch.
        config: the stage.
        batches: first so many training images, float [B, C, H, W] in 0..1; the same on all workers.

    Raises:
        AlreadyQuantized: the start is quantised in another way than the stage asks for.
    """
    asked = config.quantization
    if isinstance(network, QuantizedNetwork):
        if asked is not None and asked.settled != network.config:
            raise AlreadyQuantized(
                "the stage starts from a network that is quantised in another way; start from the float one it was "
                "made from, or leave quantization out to keep what it has"
            )
        if not config.from_scratch:
            return network
        quantized = network
    elif asked is None:
        return network
    else:
        quantized = quantize(network, asked.settled)
    calibrate(quantized, batches((asked or QuantizedTrainingConfig()).calibration_images), "moving-average")
    return_freed_memory()
    return quantized


class RangeTracking:
    """Ranges follow the batches until they freeze, alike on all workers; so do batch-norm statistics, until later.

    Args:
        network: in training.
        config: when.
        optimizer_steps: of the whole stage.
        workers: ranges are those of the global batch, and the statistics that freeze the mean of all workers'.

    Raises:
        ConfigError: it freezes after the stage's last step.
    """

    def __init__(
        self, network: QuantizedNetwork, config: QuantizedTrainingConfig, optimizer_steps: int, workers: Workers
    ) -> None:
        self.workers = workers
        self.quantizers = [quantizer for _, quantizer in network.quantizers()]
        self.norms, self.statistics = batch_norms(network), statistics_of(network)
        self.freeze_ranges, self.freeze_statistics = freezing_steps(config, optimizer_steps)
        self._forget()

    def before_batch(self, step: int, training: bool) -> None:
        """Set the modules to what holds at an optimizer step; call it after the network's own mode is set."""
        follows = step < self.freeze_ranges and training
        for number, quantizer in enumerate(self.quantizers):
            quantizer.watch = partial(self._see, number) if follows else None
        for norm in self.norms:
            norm.train(step < self.freeze_statistics and training)

    def after_step(self, step: int) -> None:
        """Let ranges follow what all workers have seen in an optimizer step; after the last one that statistics follow,
        those of all workers become one: they would train with different ones until the epoch ends."""
        if step < self.freeze_statistics <= step + 1:
            self.workers.average_(self.statistics)
        if step >= self.freeze_ranges:
            return
        seen = self.workers.largest(torch.stack(self.seen))
        for quantizer, (negative_low, high) in zip(self.quantizers, seen, strict=True):
            quantizer.set_range(quantizer.low.lerp(-negative_low, MOMENTUM), quantizer.high.lerp(high, MOMENTUM))
        self._forget()

    def _see(self, number: int, values: Tensor) -> None:
        low, high = torch.aminmax(values)
        self.seen[number] = torch.maximum(self.seen[number], torch.stack((-low, high)).float())

    def _forget(self) -> None:
        nothing = torch.full((2,), -torch.inf, device=self.workers.device)
        self.seen = [nothing] * len(self.quantizers)


def share_ranges(average: QuantizedNetwork, network: QuantizedNetwork) -> None:
    """Let a network's moving average have the very ranges of the network: weights are averaged, ranges are not."""
    for (_, mine), (_, theirs) in zip(average.quantizers(), network.quantizers(), strict=True):
        mine.low, mine.high = theirs.low, theirs.high


def freezing_steps(config: QuantizedTrainingConfig, optimizer_steps: int) -> tuple[float, float]:
    """At which optimizer steps of a stage ranges and statistics freeze.

    Raises:
        ConfigError: after its last one.
    """
    ranges, statistics = (
        _step_of(key, getattr(config, key), optimizer_steps) for key in ("freeze_ranges", "freeze_statistics")
    )
    return ranges, statistics


def _step_of(key: str, point: float, optimizer_steps: int) -> float:
    step = point * optimizer_steps if point <= 1 else point
    if step > optimizer_steps:
        raise ConfigError(
            "quantization",
            [
                f"{key} is step {point:g}, and the stage has only {optimizer_steps} optimizer steps; give a share of "
                "them up to 1, or train longer"
            ],
        )
    return step
