"""Training and evaluation as Ray's workers do them: in this process, in one worker, in two."""

import errno
import json
import os
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import ray
import ray.exceptions
import torch
from tiny_training import SIZE, scenes, tiny_bundle, tiny_network, training, without_batch_norm
from upath import UPath

from yolo_dist.bundle import open_bundle
from yolo_dist.compress.quantization import QuantizedNetwork
from yolo_dist.compress.sparsity import batch_norm
from yolo_dist.darknet.network import Network
from yolo_dist.darknet.weights import weights_bytes
from yolo_dist.data.shards import ShardSet, open_split
from yolo_dist.errors import MachineFailed, NonFiniteLoss, OutOfMemory
from yolo_dist.evaluate.evaluator import EvaluationConfig
from yolo_dist.train import ray_trainer
from yolo_dist.train.cluster import ClusterConfig, run_on_workers
from yolo_dist.train.loop import Trainer
from yolo_dist.train.ray_trainer import EvaluateJob, TrainJob, evaluate_on_workers, train_on_workers
from yolo_dist.train.tracking import Tracker, read_metrics
from yolo_dist.train.workers import Workers

RAY_WARNS_OF_ITSELF = pytest.mark.filterwarnings("ignore::DeprecationWarning:ray.data")
"""Starting workers makes Ray Data set its own deprecated options."""


@dataclass(frozen=True)
class Place:
    """A folder with a bundle to start from and shards of scenes, and the jobs that use them."""

    folder: Path

    @classmethod
    def with_network(cls, folder: Path, network: Network, images: int = 8) -> "Place":
        tiny_bundle(network).save(folder / "start")
        scenes(folder / "train", images)
        scenes(folder / "validation", images=5, seed=2)
        return cls(folder)

    def evaluation(self, output: str) -> EvaluateJob:
        return EvaluateJob(
            model=str(self.folder / "start"),
            validation=str(self.folder / "validation" / "train"),
            output=str(self.folder / output),
            config=EvaluationConfig(batch_size=2),
        )

    def job(self, output: str, **config: Any) -> TrainJob:
        return TrainJob(
            start=self.evaluation(output),
            train=str(self.folder / "train" / "train"),
            config=training(**config),
            metrics=str(self.folder / f"{output}.jsonl"),
            checkpoints=str(self.checkpoints / output),
            run="run",
            stage="base",
        )

    def train(self, output: str, workers: int, **config: Any) -> list[dict[str, Any]]:
        """The lines of metrics.jsonl after training into `output`."""
        job = self.job(output, **config)
        train_on_workers(job, ClusterConfig(workers=workers))
        return self.lines(output)

    def lines(self, output: str) -> list[dict[str, Any]]:
        return read_metrics(UPath(self.folder / f"{output}.jsonl"))

    def evaluated(self, output: str) -> dict[str, bytes]:
        """What an evaluation left behind: file → content."""
        folder = self.folder / output / "evaluation"
        return {path.name: path.read_bytes() for path in folder.rglob("*") if path.is_file()}

    def weights(self, output: str) -> bytes:
        return weights_bytes(open_bundle(self.folder / output / "bundle").network)

    @property
    def checkpoints(self) -> UPath:
        return UPath(self.folder / "checkpoints")


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place.with_network(tmp_path, tiny_network())


def test_without_workers_a_stage_is_trained_in_this_process(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    lines = place.train("out", workers=0, epochs=3, evaluate_every=2, sparsity={"factor": 0.001})

    assert [line["epoch"] for line in lines] == [1, 2, 3]
    assert [line["step"] for line in lines] == [2, 4, 6]
    assert {line["stage"] for line in lines} == {"base"}
    for line in lines:
        assert set(line) - {"map", "map50", "per_class"} == {
            *("stage", "epoch", "epochs", "step", "loss", "learning_rate", "learning_rates"),
            *("images_per_second", "seconds", "seconds_left", "gauge"),
        }
    assert ["map50" in line for line in lines] == [False, True, False]
    assert lines[-1]["seconds_left"] == 0

    start, trained = open_bundle(place.folder / "start"), open_bundle(place.folder / "out" / "bundle")
    assert trained.parent == start.fingerprint
    assert trained.classes == start.classes
    assert trained.image_size == start.image_size
    assert trained.network.cfg == start.network.cfg
    assert weights_bytes(trained.network) != weights_bytes(start.network)
    assert 0 <= json.loads(place.evaluated("out")["evaluation.json"])["map50"] <= 1

    said = capsys.readouterr().out
    assert "base: 8 images, batch 4 × 1, 1 worker(s) on cpu, float32, 6 steps" in said
    assert "4 sparse layers, a γ travels about 0.00" in said
    assert "warning: under 1 little becomes sparse" in said


def test_what_is_kept_is_the_average_not_the_last_step(place: Place) -> None:
    place.train("out", workers=0, epochs=1)
    bundle = open_bundle(place.folder / "start")
    trainer = Trainer(bundle.network, ShardSet.open(place.folder / "train" / "train"), training(epochs=1), (64, 64))
    trainer.run_epoch()
    with trainer.judged(last=True) as network:
        assert place.weights("out") == weights_bytes(network)
    assert place.weights("out") != weights_bytes(trainer.network)


def test_a_sparse_stage_ends_early_once_ready(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    dead = tiny_network()
    with torch.no_grad():
        for layer in (1, 2, 3):
            batch_norm(dead, layer).weight.fill_(1e-6)
    tiny_bundle(dead).save(place.folder / "start")
    still = {"learning_rate": 1e-9, "warmup_epochs": 0}
    sparsity = {"stop_when_ready": 0.85, "factor": 1e-3}
    lines = place.train("out", workers=0, epochs=5, sparsity=sparsity, optimizer=still)
    assert len(lines) == 1
    assert "base: as sparse as asked for after 1 of 5 epochs" in capsys.readouterr().out
    assert place.evaluated("out")


def test_training_from_scratch_forgets_the_weights_but_not_the_shape(place: Place) -> None:
    place.train("one", workers=0, epochs=1, from_scratch=True, seed=4)
    tiny_bundle(tiny_network(seed=9)).save(place.folder / "start")
    place.train("two", workers=0, epochs=1, from_scratch=True, seed=4)
    place.train("three", workers=0, epochs=1, from_scratch=True, seed=5)
    assert place.weights("one") == place.weights("two") != place.weights("three")


def test_errors_in_this_process_are_themselves(place: Place) -> None:
    network = tiny_network()
    with torch.no_grad():
        next(network.parameters())[0] = float("nan")
    tiny_bundle(network).save(place.folder / "start")
    with pytest.raises(NonFiniteLoss, match="epoch 1, step 1"):
        place.train("out", workers=0)
    assert not (place.folder / "out").exists()


@pytest.mark.parametrize(
    "write",
    [
        pytest.param("train.tracking.metrics_file.publish", id="metrics"),
        pytest.param("train.batch_size.publish", id="the batch size"),
        pytest.param("evaluate.samples._draw_samples", id="pictures"),
        pytest.param("bundle.Bundle.write", id="the bundle"),
    ],
)
def test_a_disk_that_is_full_when_a_stage_writes_is_one_line(
    place: Place, write: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(f"yolo_dist.{write}", full)
    with pytest.raises(MachineFailed, match=f"^{place.folder}: the disk or a quota is full; make room, then the same"):
        place.train("out", workers=0, epochs=1, batch_size="auto")


def without_memory(*_: object) -> None:
    raise ray.train.WorkerGroupError("traceback", {0: ray.exceptions.OutOfMemoryError("killed")})


EVALUATING = "run fewer workers on a machine or set evaluation.batch_size: 1"


@pytest.mark.parametrize(
    ("batch_size", "noted", "batch"),
    [
        pytest.param(8, None, "set batch_size: 4", id="half of a number"),
        pytest.param("auto", "4", "set batch_size: 2", id="half of what auto came to"),
        pytest.param("auto", None, "take a smaller image_size", id="before auto came to a number"),
        pytest.param(1, None, "take a smaller image_size", id="one image"),
    ],
)
def test_a_worker_that_ray_ended_for_want_of_memory_names_smaller_batches(
    place: Place, batch_size: int | str, noted: str | None, batch: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray.train.torch.TorchTrainer, "fit", without_memory)
    if noted is not None:
        (place.folder / "out").mkdir()
        (place.folder / "out" / "batch_size.json").write_text(noted)
    expected = f"ran out of memory; {batch} to begin anew; to go on from the last checkpoint {EVALUATING}$"
    with pytest.raises(OutOfMemory, match=expected):
        place.train("out", workers=0, batch_size=batch_size)
    with pytest.raises(OutOfMemory, match=f"ran out of memory; {EVALUATING}$"):
        evaluate_on_workers(place.evaluation("out"), ClusterConfig(workers=0), place.checkpoints, "out")


def test_a_stage_whose_weights_became_useless_is_no_result(place: Place) -> None:
    """The last step of a far too high rate leaves numbers that no loss comes after."""
    wild = {"learning_rate": 1e25, "warmup_epochs": 0}
    with pytest.raises(NonFiniteLoss, match="output is not finite after epoch 1; lower optimizer"):
        place.train("out", workers=0, epochs=1, batch_size=8, nominal_batch=8, optimizer=wild)
    assert not (place.folder / "out").exists()


@RAY_WARNS_OF_ITSELF
def test_two_workers_train_what_one_does_and_evaluate_it_to_the_bit_as_one(tmp_path: Path, ray_session: None) -> None:
    """Without batch norm, and with a last batch of one image, of which the first worker gets nothing."""
    place = Place.with_network(tmp_path, without_batch_norm(), images=5)
    alone = place.train("alone", workers=0, epochs=3)
    together = place.train("together", workers=2, epochs=3)
    for one, both in zip(alone, together, strict=True):
        assert both["loss"] == pytest.approx(one["loss"], rel=1e-4)
    networks = [open_bundle(place.folder / name / "bundle").network for name in ("alone", "together")]
    start = without_batch_norm()
    for one, both, first in zip(*(network.parameters() for network in (*networks, start)), strict=True):
        torch.testing.assert_close(both - first, one - first, rtol=1e-2, atol=1e-6)

    again = replace(place.evaluation("again"), model=str(place.folder / "together" / "bundle"))
    evaluate_on_workers(again, ClusterConfig(workers=0), place.checkpoints, "again")
    assert place.evaluated("together") == place.evaluated("again")


@RAY_WARNS_OF_ITSELF
def test_one_worker_in_place_of_two_learns_what_both_would_with_batch_norm_too(
    tmp_path: Path, ray_session: None
) -> None:
    place = Place.with_network(tmp_path, tiny_network(), images=5)
    lines = place.train("together", workers=2, epochs=2)
    shards = open_split(tmp_path / "train", "train")
    alone = Trainer(tiny_network(), shards, training(epochs=2), SIZE, Workers(most=2), threads=0)
    for line in lines:
        assert alone.run_epoch().loss == pytest.approx(line["loss"], rel=1e-3)
    together = open_bundle(place.folder / "together" / "bundle").network
    for one, both, first in zip(
        *(network.parameters() for network in (alone.average.network, together, tiny_network())), strict=True
    ):
        torch.testing.assert_close(one - first, both - first, rtol=1e-2, atol=1e-5)


@RAY_WARNS_OF_ITSELF
def test_two_workers_have_the_ranges_of_one_and_their_quantised_bundle_rebuilds_itself(
    tmp_path: Path, ray_session: None
) -> None:
    place = Place.with_network(tmp_path, without_batch_norm(), images=8)
    quantization = {"calibration_images": 4, "freeze_ranges": 1}
    for name, workers in (("alone", 0), ("together", 2)):
        place.train(name, workers=workers, epochs=2, quantization=quantization)
    alone, together = (open_bundle(place.folder / name / "bundle").network for name in ("alone", "together"))
    assert isinstance(alone, QuantizedNetwork)
    assert isinstance(together, QuantizedNetwork)
    for (name, one), (_, both) in zip(alone.quantizers(), together.quantizers(), strict=True):
        torch.testing.assert_close(both.high, one.high, rtol=1e-3, atol=1e-3, msg=name)
    again = replace(place.evaluation("again"), model=str(place.folder / "together" / "bundle"))
    evaluate_on_workers(again, ClusterConfig(workers=0), place.checkpoints, "again")
    assert place.evaluated("together") == place.evaluated("again")


def fail_after_the_first_epoch(job: TrainJob, workers: Workers) -> None:
    """Training that a planted error ends when its second epoch is about to be written down."""
    log = Tracker.log

    def log_once(tracker: Tracker, line: dict[str, Any]) -> None:
        if line["epoch"] == 2:
            raise NonFiniteLoss("planted")
        log(tracker, line)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Tracker, "log", log_once)
        ray_trainer._train(job, workers)


@pytest.fixture
def planted_functions() -> Iterator[None]:
    """Workers cannot import this file: its functions travel to them as code."""
    here = sys.modules[__name__]
    ray.cloudpickle.register_pickle_by_value(here)
    yield
    ray.cloudpickle.unregister_pickle_by_value(here)


@RAY_WARNS_OF_ITSELF
def test_an_interrupted_stage_goes_on_from_its_checkpoint_and_ends_as_if_nothing_had_happened(
    place: Place, ray_session: None, planted_functions: None
) -> None:
    never_stopped = place.train("smooth", workers=0, epochs=3)
    job, cluster = place.job("broken", epochs=3), ClusterConfig(workers=1)
    with pytest.raises(NonFiniteLoss, match=r"^planted$"):
        run_on_workers(fail_after_the_first_epoch, job, cluster, place.checkpoints, "broken")
    assert [line["epoch"] for line in place.lines("broken")] == [1]
    assert not (place.folder / "broken").exists()
    written = (place.folder / "broken.jsonl").read_text()

    train_on_workers(job, cluster)

    assert (place.folder / "broken.jsonl").read_text().startswith(written)
    assert [line["loss"] for line in place.lines("broken")] == [line["loss"] for line in never_stopped]
    assert place.weights("broken") == place.weights("smooth")
    assert place.evaluated("broken") == place.evaluated("smooth")

    # The driver was killed before it could take the results: no epoch is trained again, the lines keep their times.
    written = (place.folder / "broken.jsonl").read_text()
    shutil.rmtree(place.folder / "broken")
    train_on_workers(job, cluster)
    assert (place.folder / "broken.jsonl").read_text() == written
    assert place.weights("broken") == place.weights("smooth")
    assert place.evaluated("broken") == place.evaluated("smooth")
