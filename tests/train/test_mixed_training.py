"""Training on a mixture: it learns, resumes, and no number of workers changes what it learns from."""

from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_mixture import JOINT, open_mixture
from tiny_training import SIZE, tiny_network, training, without_batch_norm
from torch import Tensor
from upath import UPath

from yolo_dist.bundle import Bundle
from yolo_dist.data.loader import images_of
from yolo_dist.data.mixture import Mixture
from yolo_dist.data.shards import open_split
from yolo_dist.train.cluster import ClusterConfig
from yolo_dist.train.loop import Trainer
from yolo_dist.train.loss import DetectionLoss, Loss
from yolo_dist.train.ray_trainer import EvaluateJob, TrainJob, train_on_workers
from yolo_dist.train.tracking import read_metrics
from yolo_dist.train.workers import Workers


def test_the_loss_falls(mixture: Mixture) -> None:
    trainer = Trainer(tiny_network(), mixture, training(epochs=20), SIZE)
    losses = [trainer.run_epoch().loss["total"] for _ in range(20)]
    assert losses[-1] < losses[0] / 2


def test_resume_is_bit_exact(mixture: Mixture) -> None:
    config = training(epochs=4, augment={"mosaic": 0.5})
    through, first, second = (Trainer(tiny_network(), mixture, config, SIZE, threads=0) for _ in range(3))
    losses = [through.run_epoch().loss for _ in range(4)]
    resumed = [first.run_epoch().loss for _ in range(2)]
    second.restore(first.state())
    resumed += [second.run_epoch().loss for _ in range(2)]
    assert resumed == losses
    for name, tensor in through.network.state_dict().items():
        assert torch.equal(tensor, second.network.state_dict()[name])


def test_shares_of_workers_have_the_loss_of_the_whole_batch(mixture: Mixture) -> None:
    """Without batch norm, and told how many matches the whole batch has, three workers add up to one."""

    def terms(rank: int, size: int, matches_of_all: Tensor | None = None) -> tuple[Tensor, Tensor]:
        trainer = Trainer(without_batch_norm(), mixture, training(), SIZE, Workers(rank=rank), threads=0)
        trainer.loader.world_size = size
        batch = next(iter(trainer.loader.batches(0)))
        matches = trainer._matches(batch)
        own = trainer.loss.counts([matches], trainer.device)
        counts = own if matches_of_all is None else matches_of_all
        return trainer._loss(batch, matches, lambda: counts, global_images=4, optimizer_step=3).terms, own

    whole, matches = terms(0, 1)
    shares = [terms(rank, 3, matches)[0] for rank in range(3)]
    torch.testing.assert_close(torch.stack(shares).sum(dim=0), whole, rtol=1e-5, atol=1e-6)


def test_the_loss_is_told_what_each_images_source_knows(mixture: Mixture, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[list[list[bool]]] = []
    original = DetectionLoss.__call__

    def noting(loss: DetectionLoss, *arguments: Any) -> Loss:
        seen.append(arguments[4].tolist())
        return original(loss, *arguments)

    monkeypatch.setattr(DetectionLoss, "__call__", noting)
    Trainer(tiny_network(), mixture, training(batch_size=8), SIZE).run_epoch()
    street, home = [True, True, False], [False, True, True]
    assert [(rows.count(street), rows.count(home)) for rows in seen] == [(6, 2), (6, 2)]


def test_images_for_statistics_come_from_all_sources_by_weight(mixture_folder: Path, mixture: Mixture) -> None:
    found = images_of(mixture, SIZE, 8)
    street, home = (open_split(mixture_folder / "shards" / name, "train") for name in ("street", "home"))
    expected = torch.cat([images_of(street, SIZE, 6), images_of(home, SIZE, 2)])
    assert torch.equal(found, expected)


@pytest.mark.filterwarnings("ignore::DeprecationWarning:ray.data")
def test_two_workers_train_on_a_mixture_and_measure_it(mixture_folder: Path, tmp_path: Path, ray_session: None) -> None:
    Bundle(tiny_network(), JOINT, SIZE).save(tmp_path / "start")
    train, validation = (open_mixture(mixture_folder, split).plan for split in ("train", "val"))
    start = EvaluateJob(str(tmp_path / "start"), validation, str(tmp_path / "out"))
    config = training(epochs=2, evaluate_every=1)
    job = TrainJob(
        start, train, config, str(tmp_path / "metrics.jsonl"), "run", "base", str(tmp_path / "checkpoints" / "mixed")
    )
    train_on_workers(job, ClusterConfig(workers=2))
    first, _ = read_metrics(UPath(tmp_path / "metrics.jsonl"))
    assert set(first["sources"]) == {"street", "home"}
    assert (tmp_path / "out" / "bundle" / "model.weights").is_file()
