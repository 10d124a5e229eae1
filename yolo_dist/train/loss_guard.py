"""The guard of the loss: it names the step whose loss is the first that is no number, and costs no step a wait."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from yolo_dist.errors import NonFiniteLoss
from yolo_dist.train.workers import Workers

CHECK_EVERY = 20
"""Steps whose terms stay on the device until they are looked at together."""
REMEDY = "lower optimizer.learning_rate, or switch autocast off"


class LossGuard:
    """Looks at the loss terms of an epoch, many steps at a time.

    Args:
        names: of the terms.
        epoch: counted from 0.
        workers: all learn of a bad step at once, though the images of only one of them may have caused it.
    """

    def __init__(self, names: Sequence[str], epoch: int, workers: Workers) -> None:
        self.names = names
        self.epoch = epoch
        self.workers = workers
        self._unseen: list[tuple[int, Tensor]] = []

    def watch(self, step: int, terms: Tensor) -> None:
        """Take the terms of a step, float [terms], this worker's share; every so many steps, `check`.

        Raises:
            NonFiniteLoss: as `check`.
        """
        self._unseen.append((step, terms))
        if step % CHECK_EVERY == 0:
            self.check()

    def check(self) -> None:
        """Look at all that came since the last check; call it at the end of the epoch too.

        Raises:
            NonFiniteLoss: a step's loss is NaN or infinite; names the first such step of all workers and its terms.
        """
        if not self._unseen:
            return
        terms = self.workers.sum(torch.stack([terms for _, terms in self._unseen]))
        steps, self._unseen = [step for step, _ in self._unseen], []
        bad = ~torch.isfinite(terms).all(dim=1)
        if not bad.any():
            return
        first = int(bad.int().argmax())
        loss = dict(zip(self.names, terms[first].tolist(), strict=True))
        values = ", ".join(f"{name} {value:g}" for name, value in loss.items())
        where = f"epoch {self.epoch + 1}, step {steps[first] + 1}"
        raise NonFiniteLoss(f"the loss is not finite at {where} ({values}); {REMEDY}", steps[first], loss)


def plain(loss: dict[str, float]) -> dict[str, float | str]:
    """Loss terms as JSON can hold them: what is no number becomes its name."""
    return {name: value if math.isfinite(value) else str(value) for name, value in loss.items()}
