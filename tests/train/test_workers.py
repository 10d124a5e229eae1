"""The worker group as a training function sees it."""

import os
import platform
import subprocess
import sys
from collections.abc import Callable
from types import SimpleNamespace

import pytest
import torch
import torch.distributed
from torch import Tensor

from yolo_dist.freed_memory import KEEPING_FREED_MEMORY
from yolo_dist.train.workers import Workers


def test_a_group_of_one_needs_no_messages() -> None:
    alone = Workers()
    tensor = torch.tensor([1.0, 2.0])
    assert alone.first
    assert alone.sum(tensor) is tensor
    assert alone.sum_later(tensor)() is tensor
    assert alone.gather(["mine"]) == [["mine"]]
    alone.average_([tensor])
    assert tensor.tolist() == [1.0, 2.0]


def all_reduce_with(others: list[Tensor]) -> Callable[..., SimpleNamespace]:
    """An all-reduce in which the other workers send these tensors, one a call; they arrive late if that is allowed."""
    waiting = iter(others)

    def reduce(tensor: Tensor, async_op: bool = False) -> SimpleNamespace:
        message = SimpleNamespace(wait=lambda: tensor.add_(next(waiting)))
        if not async_op:
            message.wait()
        return message

    return reduce


def test_a_sum_leaves_the_own_tensor_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.distributed, "all_reduce", all_reduce_with([torch.tensor([10.0, 20.0])]))
    own = torch.tensor([1.0, 2.0])
    assert Workers(0, 2).sum(own).tolist() == [11.0, 22.0]
    assert own.tolist() == [1.0, 2.0]


def test_a_sum_is_waited_for_when_it_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    others = [torch.tensor([10.0, 20.0])]
    monkeypatch.setattr(torch.distributed, "all_reduce", all_reduce_with(others))
    total = Workers(0, 2).sum_later(torch.tensor([1.0, 2.0]))
    others[0] += 1  # they have not sent it yet
    assert total().tolist() == [12.0, 23.0]


def test_an_average_takes_one_message_for_tensors_of_all_shapes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.distributed, "all_reduce", all_reduce_with([torch.arange(7.0)]))
    matrix, vector = torch.zeros(2, 3), torch.zeros(1)
    Workers(0, 2).average_([matrix, vector])
    assert matrix.tolist() == [[0, 0.5, 1], [1.5, 2, 2.5]]
    assert vector.tolist() == [3]


def test_the_mean_of_equal_numbers_is_that_number(monkeypatch: pytest.MonkeyPatch) -> None:
    """Statistics that are frozen do not change by rounding."""
    own = torch.rand(1000, generator=torch.Generator().manual_seed(1))
    averaged = own.clone()
    monkeypatch.setattr(torch.distributed, "all_reduce", all_reduce_with([2 * own.double()]))
    Workers(0, 3).average_([averaged])
    assert torch.equal(averaged, own)


ALLOCATE_AGAIN_AND_AGAIN = """
import resource, sys
import torch
from yolo_dist.freed_memory import keep_freed_memory
if sys.argv[1:] == ["keep"]:
    keep_freed_memory()
for _ in range(5):
    torch.ones(40, 2**20)  # 160 MiB
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    torch.ones(40, 2**20)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def pages_handed_out(*arguments: str, environment: dict[str, str] | None = None) -> int:
    """Pages that the kernel hands out when a process allocates and frees the same 160 MiB twenty times."""
    command = [sys.executable, "-c", ALLOCATE_AGAIN_AND_AGAIN, *arguments]
    clean = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
    done = subprocess.run(command, check=True, capture_output=True, env=clean | (environment or {}))
    return int(done.stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library has its own ways")
def test_kept_memory_is_rarely_handed_out_again_by_the_kernel() -> None:
    by_default = pages_handed_out()
    assert pages_handed_out("keep") < by_default / 4
    assert pages_handed_out(environment=KEEPING_FREED_MEMORY) < by_default / 4
