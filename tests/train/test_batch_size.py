"""Batches that fit into memory: the search, the trial step, and what is said when memory runs out."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_training import SIZE, scenes, tiny_bundle, tiny_network, training, without_batch_norm
from upath import UPath

from yolo_dist.compress.quantization import QuantizedTrainingConfig, quantize
from yolo_dist.errors import OutOfMemory
from yolo_dist.shortage import is_lack_of_memory
from yolo_dist.train import batch_size as module
from yolo_dist.train.batch_size import (
    TrialStep,
    lack_of_memory_explained,
    largest_batch,
    noted_batch_size,
    settle_batch_size,
    share_of,
    spare_bytes,
)
from yolo_dist.train.cluster import ClusterConfig
from yolo_dist.train.loop import Trainer
from yolo_dist.train.ray_trainer import EvaluateJob, TrainJob, train_on_workers
from yolo_dist.train.workers import Workers

CPU = torch.device("cpu")
ON_CPU = "[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes"


def machine(holds: int) -> Callable[[int], int]:
    """Steps that need 10 bytes and 5 an image, on a machine whose allocator fails above `holds` images."""

    def step(images: int) -> int:
        if images > holds:
            raise RuntimeError(ON_CPU)
        return 10 + 5 * images

    return step


@pytest.mark.parametrize(
    ("holds", "spare", "limit", "workers", "expected"),
    [
        pytest.param(99, 10 + 5 * 99, 64, 1, 64, id="no more than the limit"),
        pytest.param(99, 10 + 5 * 99, 63, 1, 32, id="a power of two"),
        pytest.param(99, 10 + 5 * 16, 64, 1, 16, id="as many bytes as there are"),
        pytest.param(99, 10 + 5 * 16 - 1, 64, 1, 8, id="one byte less"),
        pytest.param(7, 10**6, 64, 1, 4, id="the allocator fails where bytes were promised"),
        pytest.param(1, 10**6, 64, 1, 1, id="one image"),
        pytest.param(0, 10**6, 64, 1, 0, id="not even one"),
        pytest.param(99, 14, 64, 1, 0, id="no bytes for even one"),
        pytest.param(99, 10 + 5 * 16, 64, 3, 32, id="of which a third is this worker's"),
        pytest.param(99, 10**6, 0, 1, 0, id="nothing asked for"),
    ],
)
def test_the_largest_batch_that_fits(holds: int, spare: int, limit: int, workers: int, expected: int) -> None:
    assert largest_batch(machine(holds), spare, limit, workers) == expected


def test_the_search_agrees_with_trying_every_size() -> None:
    generator = np.random.default_rng(0)
    for _ in range(200):
        holds, spare, limit, workers = (int(number) for number in generator.integers([0, 0, 1, 1], [40, 300, 70, 5]))
        fitting = [
            size
            for size in (1, 2, 4, 8, 16, 32, 64)
            if size <= limit and share_of(size, workers) <= holds and 10 + 5 * share_of(size, workers) <= spare
        ]
        assert largest_batch(machine(holds), spare, limit, workers) == max(fitting, default=0)


def test_an_error_that_is_not_about_memory_is_not_taken_for_one() -> None:
    def broken(images: int) -> int:
        raise RuntimeError("shapes do not match")

    with pytest.raises(RuntimeError, match="shapes do not match"):
        largest_batch(broken, 10, 8)


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"), True),
        (RuntimeError(ON_CPU), True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), True),
        (MemoryError(), True),
        (RuntimeError("shapes do not match"), False),
        (OSError("can't allocate memory"), False),
    ],
)
def test_what_a_lack_of_memory_looks_like(error: Exception, expected: bool) -> None:
    assert is_lack_of_memory(error) == expected


def test_torch_itself_says_so() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(1 << 60, dtype=torch.uint8)
    assert is_lack_of_memory(caught.value)


@pytest.mark.parametrize("quantized", [False, True])
def test_a_trial_step_leaves_no_trace(quantized: bool) -> None:
    network = tiny_network().train()
    if quantized:
        network = quantize(network, QuantizedTrainingConfig().settled)
        for _, quantizer in network.quantizers():
            quantizer.set_range(torch.tensor(-1.0), torch.tensor(1.0))
    before = {name: value.clone() for name, value in network.state_dict().items()}
    random = torch.get_rng_state()
    TrialStep(network, training(), SIZE, CPU)(3)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert all(parameter.grad is None for parameter in network.parameters())
    assert torch.equal(torch.get_rng_state(), random)
    assert network.training


def test_the_bytes_of_a_step_grow_evenly_with_its_images_and_with_their_size() -> None:
    step = TrialStep(tiny_network(), training(), SIZE, CPU)
    one, two, five = step(1), step(2), step(5)
    assert five - two == pytest.approx(3 * (two - one), rel=0.01)
    larger = TrialStep(tiny_network(), training(multi_scale=(0.5, 2.0)), SIZE, CPU)
    assert larger(2) - larger(1) == pytest.approx(4 * (two - one), rel=0.02)


def test_the_bytes_of_a_step_are_at_least_those_of_what_its_convolutions_read() -> None:
    network = without_batch_norm()
    step = TrialStep(network, training(), SIZE, CPU)
    read = 4 * sum(channels * side * side for channels, side in [(3, 64), (8, 32), (16, 16), (24, 8), (32, 4)])
    assert read < step(2) - step(1) < 10 * read


def test_a_number_stays_and_is_not_noted(tmp_path: Path) -> None:
    config = training(batch_size=4)
    assert settle_batch_size(tiny_network(), config, SIZE, Workers(), UPath(tmp_path)) is config
    assert noted_batch_size(UPath(tmp_path)) is None


def test_auto_is_settled_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = training(batch_size="auto", nominal_batch=16)
    found = settle_batch_size(tiny_network(), config, SIZE, Workers(), UPath(tmp_path))
    assert (found.batch_size, found.accumulate) == (16, 1)
    assert noted_batch_size(UPath(tmp_path)) == 16
    monkeypatch.setattr(module, "spare_bytes", lambda _: 0)
    assert settle_batch_size(tiny_network(), config, SIZE, Workers(), UPath(tmp_path)) == found


def test_auto_says_when_nothing_fits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "spare_bytes", lambda _: 0)
    with pytest.raises(OutOfMemory, match=r"^not one image of 64×64 a worker fits; take a smaller image_size$"):
        settle_batch_size(tiny_network(), training(batch_size="auto"), SIZE, Workers(), UPath(tmp_path))


def test_all_workers_take_what_fits_the_one_with_the_least_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Workers, "largest", lambda _, own: torch.maximum(own, torch.tensor([-2])))
    found = settle_batch_size(tiny_network(), training(batch_size="auto"), SIZE, Workers(1, 2), UPath(tmp_path))
    assert found.batch_size == 2
    assert noted_batch_size(UPath(tmp_path)) is None  # that is the first worker's to write


def test_a_lack_of_memory_names_the_batch_that_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(TrialStep, "__call__", lambda _, images: machine(holds=9)(images))
    expected = (
        r"^worker 1 ran out of memory with 32 images at once \(batch_size 64\); 16 would fit: set batch_size: 16 or "
        r"auto; nominal_batch keeps optimizer steps as they are$"
    )
    with (
        pytest.raises(OutOfMemory, match=expected),
        lack_of_memory_explained(tiny_network(), training(batch_size=64), SIZE, Workers(1, 2)),
    ):
        raise RuntimeError(ON_CPU)


def test_other_errors_pass_unchanged() -> None:
    with (
        pytest.raises(RuntimeError, match=r"^shapes do not match$"),
        lack_of_memory_explained(tiny_network(), training(), SIZE, Workers()),
    ):
        raise RuntimeError("shapes do not match")


@pytest.mark.parametrize("local", [1, 2])
def test_workers_of_one_machine_share_its_memory(local: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "available_memory", lambda: 1000)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", str(local))
    assert spare_bytes(CPU) == 800 / local


def job(folder: Path, **config: Any) -> TrainJob:
    tiny_bundle(tiny_network()).save(folder / "start")
    scenes(folder / "scenes")
    split = str(folder / "scenes" / "train")
    start = EvaluateJob(model=str(folder / "start"), validation=split, output=str(folder / "out"))
    checkpoints = str(folder / "checkpoints" / "base")
    config_of_stage = training(epochs=1, **config)
    return TrainJob(start, split, config_of_stage, str(folder / "metrics.jsonl"), "run", "base", checkpoints)


def test_a_stage_trains_with_what_auto_came_to(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    task = job(tmp_path, batch_size="auto", nominal_batch=4)
    train_on_workers(task, ClusterConfig(workers=0))
    assert "base: 8 images, batch 4 × 1, " in capsys.readouterr().out
    assert json.loads((tmp_path / "out" / "batch_size.json").read_text()) == 4


def test_a_stage_that_runs_out_of_memory_says_what_fits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def step(trainer: Trainer, number: int, batch: Any) -> torch.Tensor:
        raise RuntimeError(ON_CPU)

    monkeypatch.setattr(Trainer, "_train_batch", step)
    with pytest.raises(OutOfMemory, match=r"ran out of memory with 8 images at once \(batch_size 8\); 4 would fit"):
        train_on_workers(job(tmp_path, batch_size=8), ClusterConfig(workers=0))
