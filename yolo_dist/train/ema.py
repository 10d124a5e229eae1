"""Exponential moving average of a network's weights: what is evaluated and kept."""

import math
from copy import deepcopy

import torch

from yolo_dist.darknet.network import Network

DECAY = 0.9999
RAMP_UPDATES = 2000
"""Updates after which the decay has come to 63 % of its limit: early weights are forgotten fast."""


class ExponentialAverage:
    """Averages parameters and batch-norm statistics with decay 0.9999·(1 − e^(−n / 2000)) at update n."""

    def __init__(self, network: Network) -> None:
        self.network = deepcopy(network).eval().requires_grad_(False)
        self.updates = 0

    @torch.no_grad()
    def update(self, network: Network) -> None:
        """Move the average towards `network`."""
        self.updates += 1
        weight = 1 - DECAY * (1 - math.exp(-self.updates / RAMP_UPDATES))
        pairs = list(zip(self.network.state_dict().values(), network.state_dict().values(), strict=True))
        floats = [(mine, theirs) for mine, theirs in pairs if mine.is_floating_point()]
        torch._foreach_lerp_([mine for mine, _ in floats], [theirs for _, theirs in floats], weight)
        for mine, theirs in pairs:
            if not mine.is_floating_point():
                mine.copy_(theirs)
