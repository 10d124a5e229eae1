"""No step waits for the device: with tensors that have no values, whoever looks at one gets an error.

The `meta` device stands in for a GPU. It computes shapes alone, so a number read back, a branch on a tensor or a shape
that depends on values fails where on a GPU it would wait until the GPU has done all it was told.
"""

from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_training import SIZE, scenes, tiny_bundle, tiny_network, training
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from upath import UPath

from yolo_dist.compress.distillation import STRATEGIES
from yolo_dist.compress.sparsity import batch_norm
from yolo_dist.data.loader import Batch, Loader, image_batches
from yolo_dist.train.distilled import teacher_of
from yolo_dist.train.loop import Trainer
from yolo_dist.train.quantized import quantized_start
from yolo_dist.train.resuming import Resuming
from yolo_dist.train.workers import Workers

META = torch.device("meta")


class Copies(TorchDispatchMode):
    """Notes copies from one device to another: (from, to, whether it is not waited for)."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.seen: list[tuple[str, str, bool]] = []

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        if isinstance(result, Tensor) and args and isinstance(args[0], Tensor) and args[0].device != result.device:
            unwaited = bool((kwargs or {}).get("non_blocking"))
            self.seen.append((args[0].device.type, result.device.type, unwaited))
        return result


def without_values(network: nn.Module) -> None:
    """Move a network to the stand-in, parameters and buffers."""
    for module in network.modules():
        for name, parameter in module._parameters.items():
            if parameter is not None:
                moved = torch.empty_like(parameter, device=META, requires_grad=parameter.requires_grad)
                module._parameters[name] = nn.Parameter(moved, parameter.requires_grad)
        for name, buffer in module._buffers.items():
            if buffer is not None:
                module._buffers[name] = torch.empty_like(buffer, device=META)


def on_the_stand_in(folder: Path, monkeypatch: pytest.MonkeyPatch, **config: Any) -> tuple[Trainer, Batch]:
    """A trainer on it, and a batch as the loader gives it."""
    shards, settings = scenes(folder), training(**config)
    network = quantized_start(tiny_network(), settings, lambda count: image_batches(shards, SIZE, count))
    workers = Workers()
    taught = settings.distillation
    teacher = None if taught is None else teacher_of(tiny_bundle(network), tiny_bundle(tiny_network(seed=1)), taught)
    trainer = Trainer(network, shards, settings, SIZE, workers, teacher=teacher)
    batch = next(iter(trainer.loader.batches(0)))
    networks: list[nn.Module] = [trainer.network, trainer.average.network]
    if trainer.distillation is not None:
        trainer.distillation.device = META
        networks.append(trainer.distillation.teacher)
    for one in networks:
        without_values(one)
    trainer.device = META
    object.__setattr__(workers, "device", META)
    # nothing fused is written for it
    trainer.optimizer = torch.optim.SGD(trainer.network.parameters(), momentum=0.9, nesterov=True, foreach=True)
    if trainer.sparse is not None:
        trainer.sparse._penalty.gammas = [batch_norm(trainer.network, k).weight for k in trainer.sparse.candidates]
    if trainer.tracking is not None:
        trainer.tracking._forget()
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: nullcontext())
    return trainer, batch


STAGES = [
    pytest.param({}, id="float"),
    pytest.param({"sparsity": {"factor": 0.1}}, id="sparse"),
    pytest.param({"quantization": {}}, id="quantised"),
    *(
        pytest.param({"distillation": {"teacher": "x", "strategy": number}}, id=f"distilled by {number}")
        for number in STRATEGIES
    ),
]


@pytest.mark.parametrize("config", STAGES)
def test_a_step_reads_nothing_back_and_waits_for_no_copy(
    config: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer, batch = on_the_stand_in(tmp_path, monkeypatch, **config)
    assert len(batch.boxes)
    resuming = Resuming(trainer, UPath(tmp_path / "checkpoints"))
    with Copies() as copies:
        for step in range(2):
            terms = trainer._train_batch(step, batch)
            resuming.after_step()
    assert terms.device == META
    assert ("cpu", "meta", True) in copies.seen
    assert set(copies.seen) == {("cpu", "meta", True)}


def test_whoever_looks_is_found_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer, batch = on_the_stand_in(tmp_path, monkeypatch)
    terms = trainer._train_batch(0, batch)
    with pytest.raises((RuntimeError, NotImplementedError)):
        float(terms[0])
    with pytest.raises((RuntimeError, NotImplementedError)):
        bool(terms[0] > 0)
    with pytest.raises((RuntimeError, NotImplementedError)):
        terms.nonzero()
    with Copies() as copies:
        torch.zeros(3).to(META)
    assert copies.seen == [("cpu", "meta", False)]


def test_batches_for_a_gpu_are_pinned_by_the_threads_that_make_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pinned: list[Batch] = []

    def pin(batch: Batch) -> Batch:
        pinned.append(batch)
        return batch

    monkeypatch.setattr(Batch, "pin_memory", pin)
    shards = scenes(tmp_path)
    assert list(Loader(shards, SIZE, 4, pinned=True).batches(0)) == pinned
    assert len(pinned) == 2
    list(Loader(shards, SIZE, 4).batches(0))
    assert len(pinned) == 2
