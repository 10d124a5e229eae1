"""The best network of a stage so far, and when to stop looking for a better one.

Best is the largest mAP (the mean over IoU 0.5 to 0.95) among the evaluations of the stage; of equal ones the first.
"""

from copy import deepcopy
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from yolo_dist.darknet.network import Network
from yolo_dist.train.workers import Workers

Keep = Literal["last", "best"]
"""Which network a stage gives."""


@dataclass(frozen=True)
class Kept:
    """A network that a stage leaves, after which epoch it was (from 1), and why it stays."""

    name: Keep
    network: Network
    epoch: int


class BestNetwork:
    """Remembers the best network that was evaluated; all workers agree on when it was.

    Args:
        keep: its weights are only remembered where the stage says which network to give.
        patience: evaluations without a better one after which to stop; None never stops.
        workers: only the first one knows what an evaluation measured, and tells the others.

    Attributes:
        map: of the best evaluation; −1 while there is none.
        epoch: after which it was, counted from 1.
        weights: of the network that was evaluated, with the batch-norm statistics that it was evaluated with.
        waited: evaluations since.
    """

    def __init__(self, keep: Keep | None, patience: int | None, workers: Workers) -> None:
        self.keep = keep
        self.patience = patience
        self.workers = workers
        self.map = -1.0
        self.epoch = 0
        self.weights: dict[str, Tensor] = {}
        self.waited = 0

    def see(self, network: Network, epoch: int, measured: float | None) -> None:
        """Take an evaluation; all workers call it.

        Args:
            network: as it was evaluated.
            epoch: after which, counted from 1.
            measured: mAP, in the first worker; None where there was nothing to find.
        """
        own = measured if self.workers.first and measured is not None else -1.0
        found = float(self.workers.largest(torch.tensor([own], dtype=torch.float64, device=self.workers.device)))
        self.waited += 1
        if found <= self.map:
            return
        self.map, self.epoch, self.waited = found, epoch, 0
        if self.keep is not None:
            self.weights = {name: tensor.detach().clone() for name, tensor in network.state_dict().items()}

    @property
    def given_up(self) -> bool:
        """Whether there were as many evaluations without a better one as the stage has patience for."""
        return self.patience is not None and self.waited >= self.patience

    def kept(self, last: Network, epoch: int) -> tuple["Kept", "Kept | None"]:
        """The network that the stage gives, and the other one where there is one.

        Args:
            last: as it was after the stage's last epoch, and evaluated.
            epoch: number of that epoch, from 1.
        """
        own = Kept("last", last, epoch)
        if not self.weights or self.epoch == epoch:
            return own, None
        best = Kept("best", deepcopy(last), self.epoch)
        best.network.load_state_dict(self.weights)
        return (best, own) if self.keep == "best" else (own, best)

    def state(self) -> dict[str, Any]:
        """What an interrupted stage needs to go on: plain tensors and numbers."""
        return {"map": self.map, "epoch": self.epoch, "weights": self.weights, "waited": self.waited}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from what `state` gave."""
        self.map, self.epoch, self.waited = state["map"], state["epoch"], state["waited"]
        self.weights = state["weights"]
