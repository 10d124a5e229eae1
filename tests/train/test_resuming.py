"""Exact resume: a training stopped anywhere ends as one that never stopped, to the last bit."""

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from signal import SIGINT, SIGTERM
from typing import Any

import pytest
import torch
from small_networks import cfg_of, conv
from tiny_training import ANCHORS, SIZE, scenes, tiny_bundle, tiny_network, training
from torch import Tensor
from upath import UPath

from yolo_dist.darknet.cfg import Dropout, Yolo
from yolo_dist.darknet.network import Network, initialize
from yolo_dist.data.loader import image_batches
from yolo_dist.data.shards import ShardSet
from yolo_dist.errors import Interrupted, NonFiniteLoss
from yolo_dist.train import loop
from yolo_dist.train.distilled import teacher_of
from yolo_dist.train.loop import EpochSummary, Trainer
from yolo_dist.train.quantized import quantized_start
from yolo_dist.train.resuming import Resuming
from yolo_dist.train.sparse import SparseTraining
from yolo_dist.train.workers import Workers

IMAGES, STEPS, EPOCHS = 9, 5, 3
"""Batches of 2, the last of 1, accumulated in pairs: optimizer steps after the batches 2, 4 and 5 of each epoch."""
LAST = STEPS * EPOCHS

QUANTIZATION = {"calibration_images": 4, "fold_batchnorm": True, "freeze_ranges": 0.5, "freeze_statistics": 0.8}
KINDS: dict[str, dict[str, Any]] = {
    "float": {"augment": {"mosaic": 0.5}, "multi_scale": (0.5, 1.5)},
    "sparse": {"sparsity": {"factor": 0.01, "decay": "linear"}},
    "quantised": {"quantization": QUANTIZATION},
    "with dropout": {},
    "in float16": {"autocast": "float16"},
    "distilled": {"distillation": {"teacher": "elsewhere", "strategy": 5}},
}


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> ShardSet:
    return scenes(tmp_path_factory.mktemp("scenes"), images=IMAGES)


def network_with_dropout() -> Network:
    head = Yolo(mask=(0, 1, 2, 3), anchors=ANCHORS, num=4, classes=3)
    output = conv(head.channels, batch_normalize=0, activation="linear")
    network = Network(cfg_of(conv(8, 3, 2), conv(16, 3, 2), Dropout(probability=0.5), output, head, size=SIZE))
    initialize(network, seed=0)
    return network


def position(trainer: Trainer) -> int:
    """Batches since the start."""
    return trainer.epoch * STEPS + trainer.step


class Process:
    """One process that trains until it is finished, asked to stop, or crashes."""

    def __init__(self, folder: Path, shards: ShardSet, kind: str, stop: int = LAST + 1, **config: Any) -> None:
        stage = training(**{"epochs": EPOCHS, "batch_size": 2, "nominal_batch": 4} | KINDS[kind] | config)
        start = network_with_dropout() if kind == "with dropout" else tiny_network()
        network = quantized_start(start, stage, lambda count: image_batches(shards, SIZE, count))
        workers = Workers(asked_to_stop=lambda: SIGTERM if position(self.trainer) >= stop else 0)
        taught = stage.distillation
        teacher = None if taught is None else teacher_of(tiny_bundle(start), tiny_bundle(tiny_network(seed=9)), taught)
        self.trainer = Trainer(network, shards, stage, SIZE, workers, threads=0, teacher=teacher)
        self.resuming = Resuming(self.trainer, UPath(folder))
        self.summaries: list[EpochSummary] = []

    def run(self) -> "Process":
        while not self.trainer.finished:
            self.summaries.append(self.trainer.run_epoch(self.resuming.after_step))
            self.resuming.after_epoch()
        return self

    def stopped(self) -> "Process":
        with pytest.raises(Interrupted):
            self.run()
        return self

    @property
    def losses(self) -> list[dict[str, float]]:
        return [summary.loss for summary in self.summaries]

    def weights(self) -> dict[str, Tensor]:
        networks = {"network": self.trainer.network, "average": self.trainer.average.network}
        return {
            f"{name}.{key}": tensor
            for name, network in networks.items()
            for key, tensor in network.state_dict().items()
        }


@pytest.fixture(scope="module")
def never_stopped(tmp_path_factory: pytest.TempPathFactory, shards: ShardSet) -> Callable[[str], Process]:
    """The training of each kind without a stop, run once."""
    done: dict[str, Process] = {}

    def process(kind: str) -> Process:
        if kind not in done:
            done[kind] = Process(tmp_path_factory.mktemp("smooth"), shards, kind).run()
        return done[kind]

    return process


def assert_ends_alike(process: Process, other: Process) -> None:
    ours, theirs = process.weights(), other.weights()
    assert ours.keys() == theirs.keys()
    assert [name for name, tensor in ours.items() if not torch.equal(tensor, theirs[name])] == []
    assert process.losses == other.losses[EPOCHS - len(process.losses) :]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "stops",
    [
        pytest.param([1], id="within the first accumulation group"),
        pytest.param([4], id="before the last step of an epoch"),
        pytest.param([5], id="at the end of an epoch"),
        pytest.param([7], id="in the second epoch"),
        pytest.param([14], id="before the very last step"),
        pytest.param([2, 5, 8, 14], id="again and again"),
    ],
)
def test_a_training_that_is_stopped_and_started_again_ends_in_the_same_bits(
    kind: str, stops: list[int], tmp_path: Path, shards: ShardSet, never_stopped: Callable[[str], Process]
) -> None:
    for stop in stops:
        stopped = Process(tmp_path, shards, kind, stop).stopped()
        assert stop <= position(stopped.trainer) <= stop + 1
    assert_ends_alike(Process(tmp_path, shards, kind).run(), never_stopped(kind))


class Crash(Exception):
    """What nothing is prepared for."""


@pytest.fixture
def crash_in_batch(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Lets the n-th batch that is trained from now on be the last one, which is lost."""

    def plant(number: int) -> None:
        train_batch, left = loop.Trainer._train_batch, itertools.count(number - 1, -1)

        def crash(trainer: Trainer, step: int, batch: Any) -> Tensor:
            if next(left) <= 0:
                monkeypatch.undo()
                raise Crash
            return train_batch(trainer, step, batch)

        monkeypatch.setattr(loop.Trainer, "_train_batch", crash)

    return plant


@pytest.mark.parametrize(
    ("every", "batch", "goes_on_at"),
    [
        pytest.param(1, 3, 0, id="before any checkpoint"),
        pytest.param(1, 9, 5, id="in the second epoch"),
        pytest.param(2, 8, 0, id="checkpoints every second epoch"),
        pytest.param({"steps": 1}, 4, 2, id="in the middle of an accumulation group"),
        pytest.param({"steps": 2}, 11, 10, id="at the end of an epoch"),
        pytest.param({"minutes": 1e-9}, 8, 7, id="checkpoints all the time"),
        pytest.param({"minutes": 1e9}, 15, 0, id="checkpoints at no time"),
    ],
)
def test_a_crash_costs_what_came_after_the_last_checkpoint(
    every: Any,
    batch: int,
    goes_on_at: int,
    tmp_path: Path,
    shards: ShardSet,
    never_stopped: Callable[[str], Process],
    crash_in_batch: Callable[[int], None],
) -> None:
    first = Process(tmp_path, shards, "float", checkpoint_every=every)
    crash_in_batch(batch)
    with pytest.raises(Crash):
        first.run()
    second = Process(tmp_path, shards, "float", checkpoint_every=every)
    assert position(second.trainer) == goes_on_at
    assert_ends_alike(second.run(), never_stopped("float"))


def test_what_is_no_number_takes_no_checkpoint_away(tmp_path: Path, shards: ShardSet) -> None:
    process = Process(tmp_path, shards, "float", checkpoint_every={"steps": 1}, checkpoints_kept=1)

    def ruined_at_the_second_checkpoint() -> None:
        if process.trainer.step == 4:
            with torch.no_grad():
                next(process.trainer.average.network.parameters()).fill_(float("inf"))
        process.resuming.after_step()

    with pytest.raises(NonFiniteLoss, match="weights are not finite after epoch 1, step 4"):
        process.trainer.run_epoch(ruined_at_the_second_checkpoint)
    assert position(Process(tmp_path, shards, "float").trainer) == 2


def test_a_finished_training_is_not_begun_again(tmp_path: Path, shards: ShardSet) -> None:
    first = Process(tmp_path, shards, "float", checkpoint_every=2).run()
    second = Process(tmp_path, shards, "float", checkpoint_every=2)
    assert second.trainer.finished
    assert_ends_alike(second, first)


def test_time_and_place_are_told_and_time_adds_up(
    tmp_path: Path, shards: ShardSet, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(Interrupted, match="SIGTERM after epoch 1, step 2; the same command goes on") as error:
        Process(tmp_path, shards, "float", stop=7).run()
    assert error.value.exit_code == 128 + SIGTERM
    assert Interrupted(SIGINT, "after epoch 1").exit_code == 130
    capsys.readouterr()
    second = Process(tmp_path, shards, "float")
    assert capsys.readouterr().out == "going on after epoch 1, step 2 from the last checkpoint\n"
    assert 0 < second.resuming.seconds <= second.resuming.elapsed


def test_time_left_is_told_by_the_pace_of_this_process(tmp_path: Path, shards: ShardSet) -> None:
    first = Process(tmp_path, shards, "float", stop=7).stopped()
    first.resuming.checkpoints.save(7, {"trainer": first.trainer.state(), "seconds": 1e6})  # a laptop that slept
    second = Process(tmp_path, shards, "float", epochs=100)
    second.trainer.run_epoch(lambda: None)
    here = second.resuming.elapsed - second.resuming.seconds
    assert second.resuming.seconds == 1e6
    assert second.resuming.seconds_left == pytest.approx(here / 3 * (100 - 2) * STEPS, rel=0.1)


def test_being_ready_to_be_pruned_ends_a_sparse_stage_only_after_an_epoch(
    tmp_path: Path, shards: ShardSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where it is noticed must not depend on where the stage was interrupted."""
    Process(tmp_path, shards, "sparse", stop=2).stopped()
    monkeypatch.setattr(SparseTraining, "is_ready", lambda *_: True)
    again = Process(tmp_path, shards, "sparse")
    assert not again.trainer.finished
    again.run()
    assert (again.trainer.epoch, again.trainer.step) == (1, 0)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """The promise is for one number of threads."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
