"""The worker group as a training function sees it: who am I, and sums and gathers over all."""

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from inspect import signature
from typing import Any

import torch
import torch.distributed
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

_NEW_NAME = "forward_sync_buffers"
LOCAL_BUFFERS = _NEW_NAME if _NEW_NAME in signature(DistributedDataParallel).parameters else "broadcast_buffers"
"""DDP's option (renamed in torch 2.13) for batch-norm statistics: averaged once an epoch, not sent each step."""


@dataclass(frozen=True)
class Workers:
    """One worker's place in its group; the default is a group of one on the CPU.

    Attributes:
        rank: this worker's number, from 0.
        size: how many there are.
        device: where this worker computes.
        asked_to_stop: number of the signal by which the group is asked to end, or 0; only the first worker knows it.
        most: how many workers the group may have at most, where some may be missing now.
    """

    rank: int = 0
    size: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    asked_to_stop: Callable[[], int] = lambda: 0
    most: int = 1

    @property
    def first(self) -> bool:
        """Whether this worker writes files and speaks for the group."""
        return self.rank == 0

    @property
    def passes(self) -> int:
        """In how many parts a worker trains its share of a batch, one after the other: those of missing workers are
        made up for without more memory than each has when all are there."""
        return max(1, -(-self.most // self.size))

    @property
    def parts(self) -> int:
        """Parts in which all workers together train a batch."""
        return self.size * self.passes

    def share_gradients(self, network: nn.Module) -> nn.Module:
        """The network as it is called in training, so that all workers' gradients are averaged."""
        if self.size == 1:
            return network
        devices = [self.device] if self.device.type == "cuda" else None
        # gradients lie where messages take them from, and are not copied there and back
        options: dict[str, Any] = {"device_ids": devices, LOCAL_BUFFERS: False, "gradient_as_bucket_view": True}
        shared: nn.Module = DistributedDataParallel(network, **options)
        return shared

    def sum(self, tensor: Tensor) -> Tensor:
        """A tensor added up over all workers."""
        return self.sum_later(tensor)()

    def sum_later(self, tensor: Tensor) -> Callable[[], Tensor]:
        """A tensor added up over all workers, for whoever calls the result: until then nobody waits for the others."""
        if self.size == 1:
            return lambda: tensor
        total = tensor.clone()
        message = torch.distributed.all_reduce(total, async_op=True)

        def arrived() -> Tensor:
            message.wait()
            return total

        return arrived

    def largest(self, tensor: Tensor) -> Tensor:
        """The largest of all workers, element by element."""
        if self.size == 1:
            return tensor
        largest = tensor.clone()
        torch.distributed.all_reduce(largest, torch.distributed.ReduceOp.MAX)
        return largest

    def average_(self, tensors: list[Tensor]) -> None:
        """Replace float32 tensors by their mean over all workers, in one message; equal ones stay as they are."""
        if self.size == 1 or not tensors:
            return
        flat = torch.cat([tensor.flatten() for tensor in tensors]).double()  # 3·a / 3 is not a in float32
        torch.distributed.all_reduce(flat)
        parts = (flat / self.size).split([tensor.numel() for tensor in tensors])
        for tensor, part in zip(tensors, parts, strict=True):
            tensor.copy_(part.view_as(tensor))

    def wait(self) -> None:
        """Go on only when all workers have come here."""
        if self.size > 1:
            torch.distributed.barrier()

    def gather(self, items: list[Any]) -> list[list[Any]]:
        """Every worker's list, in the order of ranks."""
        if self.size == 1:
            return [items]
        gathered: list[list[Any]] = [[] for _ in range(self.size)]
        torch.distributed.all_gather_object(gathered, items)
        return gathered


def use_threads(count: int) -> None:
    """Give this process `count` threads for computing: more processes than cores fight over them."""
    os.environ["OMP_NUM_THREADS"] = str(count)
    torch.set_num_threads(count)
