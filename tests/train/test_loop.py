"""The training loop on a tiny network: it learns, it can stop and go on, and its batches may be cut anyhow."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from small_networks import cfg_of, conv, head
from tiny_training import SIZE, scenes, tiny_network, training, without_batch_norm
from torch import Tensor, nn

from yolo_dist.compress.sparsity import batch_norm
from yolo_dist.darknet.network import Network
from yolo_dist.data.shards import Sample, ShardSet
from yolo_dist.errors import ConfigError, NonFiniteLoss, TrainError
from yolo_dist.train.loop import Trainer
from yolo_dist.train.loss import DetectionLoss
from yolo_dist.train.targets import assign_all
from yolo_dist.train.workers import Workers


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> ShardSet:
    return scenes(tmp_path_factory.mktemp("scenes"), images=8)


class SameBoxes(ShardSet):
    """Different pictures with the same objects: every batch has as many matches as any other."""

    def __init__(self, shards: ShardSet) -> None:
        super().__init__(shards.folder, shards.manifest)

    def __getitem__(self, index: Any) -> Any:
        own, first = super().__getitem__(index), super().__getitem__(0)
        return Sample(own.image_id, own.image, own.width, own.height, first.boxes)


def trained(network: Network, shards: ShardSet, **config: Any) -> Trainer:
    trainer = Trainer(network, shards, training(**{"epochs": 1, **config}), SIZE, threads=0)
    for _ in range(trainer.config.epochs):
        trainer.run_epoch()
    return trainer


def weights_of(network: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in network.state_dict().items()}


def assert_equal(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> None:
    assert ours.keys() == theirs.keys()
    unequal = [name for name, tensor in ours.items() if not torch.equal(tensor, theirs[name])]
    assert unequal == []


@pytest.mark.parametrize("start", [tiny_network, without_batch_norm])
def test_a_network_has_a_head_start_until_it_is_trained(shards: ShardSet, start: Callable[[], Network]) -> None:
    """For one step, here."""
    trainer = Trainer(start(), shards, training(epochs=1, batch_size=8), SIZE, threads=0)
    assert trainer.schedule.new
    trainer.run_epoch()
    for network in (trainer.network, trainer.average.network):
        schedule = Trainer(network.requires_grad_(), shards, training(), SIZE, threads=0).schedule
        assert not schedule.new
        assert (schedule.bias_rate(0), schedule.iou_share(0)) == (schedule.rate(0), 1)


def test_the_loss_falls(shards: ShardSet) -> None:
    trainer = Trainer(tiny_network(), shards, training(epochs=25), SIZE)
    losses = [trainer.run_epoch().loss["total"] for _ in range(25)]
    assert losses[-1] < losses[0] / 2


def test_an_epoch_is_summed_up(shards: ShardSet) -> None:
    trainer = Trainer(tiny_network(), shards, training(), SIZE)
    summary = trainer.run_epoch()
    assert list(summary.loss) == ["box", "objectness", "class", "total"]
    assert summary.loss["total"] == pytest.approx(sum(summary.loss[name] for name in ("box", "objectness", "class")))
    assert summary.learning_rate == trainer.schedule.rate(1)
    assert summary.images_per_second > 0
    assert trainer.epoch == 1


def test_an_epoch_tells_the_rate_of_every_parameter_group(shards: ShardSet) -> None:
    warm_up = {"warmup_steps": 6, "warmup_share": 1}
    trainer = Trainer(tiny_network(), shards, training(epochs=3, optimizer=warm_up), SIZE)
    rates = [trainer.run_epoch().learning_rates for _ in range(3)]
    schedule, last_steps = trainer.schedule, (1, 3, 5)
    assert [own["weights"] for own in rates] == [own["scales"] for own in rates] == [*map(schedule.rate, last_steps)]
    assert [own["biases"] for own in rates] == [*map(schedule.bias_rate, last_steps)]
    assert rates[0]["biases"] > 2 * rates[0]["weights"]


def test_the_first_loss_is_that_of_the_untrained_network(shards: ShardSet) -> None:
    """One batch of everything: what the epoch reports is what the loss says about the network before it moved."""
    network = without_batch_norm()
    (batch,) = Trainer(network, shards, training(batch_size=8), SIZE).loader.batches(0)
    with torch.no_grad():
        raws = network(batch.images.float() / 255)
    matches = assign_all(network.heads, SIZE, batch.boxes, batch.labels, batch.image_index)
    expected = DetectionLoss(network, training().loss)(raws, matches, 8, iou_share=1.0)
    summary = Trainer(network, shards, training(batch_size=8), SIZE).run_epoch()
    assert list(summary.loss.values())[:3] == pytest.approx(expected.terms.tolist(), rel=1e-5)


@pytest.mark.parametrize(("batch", "accumulate"), [(4, 2), (2, 4)])
def test_accumulated_batches_are_as_one_large_batch(shards: ShardSet, batch: int, accumulate: int) -> None:
    """Without batch norm, and with as many matches in each: box and class terms are means over a batch's matches."""
    same = SameBoxes(shards)
    whole = trained(without_batch_norm(), same, batch_size=8, nominal_batch=8)
    parts = trained(without_batch_norm(), same, batch_size=batch, nominal_batch=8)
    assert parts.config.accumulate == accumulate
    assert parts.optimizer_steps == whole.optimizer_steps == 1
    start = weights_of(without_batch_norm())
    for name, tensor in weights_of(whole.network).items():
        moved = tensor - start[name]
        torch.testing.assert_close(parts.network.state_dict()[name] - start[name], moved, rtol=1e-3, atol=1e-7)
        assert moved.abs().max() > 0


def test_a_short_last_group_is_weighted_by_its_images(tmp_path: Path) -> None:
    """Five images in batches of 2, 2 and 1 accumulated to one step: as one batch of 5."""
    same = SameBoxes(scenes(tmp_path, images=5))
    objectness = {"loss": {"box_gain": 0, "class_gain": 0}}
    whole = trained(without_batch_norm(), same, batch_size=5, nominal_batch=5, **objectness)
    parts = trained(without_batch_norm(), same, batch_size=2, nominal_batch=6, **objectness)
    assert parts.loader.steps == 3
    assert parts.optimizer_steps == 1
    for name, tensor in weights_of(whole.network).items():
        torch.testing.assert_close(parts.network.state_dict()[name], tensor, rtol=1e-5, atol=1e-6)


def test_one_worker_makes_up_for_missing_ones_with_no_more_images_at_once_than_each_would_have(
    shards: ShardSet,
) -> None:
    stage = training(epochs=1, batch_size=8, nominal_batch=8)
    together, alone = (
        Trainer(without_batch_norm(), shards, stage, SIZE, Workers(most=most), threads=0) for most in (1, 3)
    )
    at_once: list[int] = []
    alone.network.register_forward_pre_hook(lambda _, arguments: at_once.append(len(arguments[0])))
    expected, found = together.run_epoch(), alone.run_epoch()
    assert at_once == [2, 3, 3]
    assert list(found.loss.values()) == pytest.approx(list(expected.loss.values()), rel=1e-5)
    start = weights_of(without_batch_norm())
    for name, tensor in weights_of(together.network).items():
        moved = alone.network.state_dict()[name] - start[name]
        torch.testing.assert_close(moved, tensor - start[name], rtol=1e-3, atol=1e-7)


def test_resume_across_an_epoch_boundary_is_bit_exact(shards: ShardSet) -> None:
    augmented = {"augment": {"mosaic": 0.5}, "sparsity": {"factor": 0.01}, "multi_scale": (0.5, 1.5)}
    never_stopped = trained(tiny_network(), shards, epochs=4, **augmented)

    first = Trainer(tiny_network(), shards, training(epochs=4, **augmented), SIZE)
    for _ in range(2):
        first.run_epoch()
    state = first.state()
    torch.manual_seed(99)
    second = Trainer(tiny_network(seed=5), shards, training(epochs=4, **augmented), SIZE)
    second.restore(state)
    assert second.epoch == 2
    for _ in range(2):
        second.run_epoch()

    assert second.average.updates == never_stopped.average.updates == 8
    assert_equal(weights_of(second.network), weights_of(never_stopped.network))
    assert_equal(weights_of(second.average.network), weights_of(never_stopped.average.network))


def test_the_same_seed_gives_the_same_network_and_another_one_another(shards: ShardSet) -> None:
    one, same, other = (
        weights_of(trained(tiny_network(), shards, augment={}, seed=seed).network) for seed in (1, 1, 2)
    )
    assert_equal(one, same)
    assert any(not torch.equal(tensor, other[name]) for name, tensor in one.items())


def test_a_loss_that_is_not_a_number_stops_the_stage_and_says_what_to_do(shards: ShardSet) -> None:
    network = tiny_network()
    with torch.no_grad():
        next(network.parameters())[0] = float("nan")
    with pytest.raises(NonFiniteLoss, match=r"epoch 1, step 1 \(box nan.*lower optimizer.learning_rate"):
        Trainer(network, shards, training(), SIZE).run_epoch()


def test_a_rate_that_is_far_too_large_is_found_out(shards: ShardSet) -> None:
    config = training(epochs=3, optimizer={"learning_rate": 1e30})
    trainer = Trainer(without_batch_norm(), shards, config, SIZE)
    with pytest.raises(NonFiniteLoss):
        [trainer.run_epoch() for _ in range(3)]


def test_weights_that_the_very_last_step_ruins_are_found_out_too(shards: ShardSet) -> None:
    config = training(epochs=1, batch_size=8, optimizer={"learning_rate": 1e38, "weight_decay": 100})
    with pytest.raises(NonFiniteLoss, match="weights are not finite after epoch 1"):
        Trainer(without_batch_norm(), shards, config, SIZE).run_epoch()


def test_sizes_of_multi_scale_training_are_multiples_of_32_and_the_same_for_all_workers(shards: ShardSet) -> None:
    config = training(multi_scale=(0.4, 2.1))
    trainers = [Trainer(tiny_network(), shards, config, (96, 64)) for _ in range(2)]
    sizes = [
        [trainer._size_of_step(0, epoch, step) for epoch in range(5) for step in range(20)] for trainer in trainers
    ]
    assert sizes[0] == sizes[1]
    assert all(side % 32 == 0 and side > 0 for size in sizes[0] for side in size)
    assert {width for width, _ in sizes[0]} == {32, 64, 96, 128, 160, 192}
    assert all(abs(width / 96 - height / 64) <= 0.5 for width, height in sizes[0])


def test_multi_scale_training_runs(shards: ShardSet) -> None:
    trainer = Trainer(tiny_network(), shards, training(multi_scale=(0.5, 1.5)), SIZE)
    assert {batch.images.shape[-1] for epoch in range(4) for batch in _batches(trainer, epoch)} == {32, 64, 96}
    assert np.isfinite(trainer.run_epoch().loss["total"])


def _batches(trainer: Trainer, epoch: int) -> Iterator[Any]:
    trainer.epoch = epoch
    yield from trainer._batches()
    trainer.epoch = 0


def test_training_in_bfloat16_comes_near_to_float32(shards: ShardSet) -> None:
    full, half = (
        Trainer(tiny_network(), shards, training(autocast=autocast), SIZE).run_epoch() for autocast in (False, True)
    )
    assert half.loss != full.loss
    assert half.loss["total"] == pytest.approx(full.loss["total"], rel=0.05)


CANDIDATES = (0, 1, 2, 3)
"""Convolutions of the tiny network in scope normal."""


def gammas(trainer: Trainer) -> Tensor:
    return torch.cat([batch_norm(trainer.network, layer).weight.detach() for layer in CANDIDATES])


@pytest.mark.parametrize("batch", [8, 4, 2])
def test_the_penalty_moves_gammas_once_a_step_however_the_batch_is_cut(shards: ShardSet, batch: int) -> None:
    """One step from zero momentum: with Nesterov a γ moves by lr·s·(1 + m) more than without the penalty."""
    momentum, factor = 0.9, 0.02
    config = {"batch_size": batch, "nominal_batch": 8, "optimizer": {"momentum": momentum, "learning_rate": 0.1}}
    sparse = trained(tiny_network(), shards, sparsity={"factor": factor}, **config)
    plain = trained(tiny_network(), shards, **config)
    assert sparse.sparse is not None
    assert sparse.sparse.candidates == list(CANDIDATES)
    assert sparse.optimizer_steps == 1
    expected = torch.full_like(gammas(plain), 0.1 * factor * (1 + momentum))
    torch.testing.assert_close(gammas(plain) - gammas(sparse), expected, rtol=1e-3, atol=1e-6)


def test_a_sparse_stage_makes_gammas_small_and_its_gauge_sees_it(shards: ShardSet) -> None:
    sparse = Trainer(tiny_network(), shards, training(epochs=30, sparsity={"budget": 4.0}), SIZE)
    for _ in range(30):
        sparse.run_epoch()
    assert gammas(sparse).abs().median() < 0.2
    gauge = sparse.gauge()
    assert gauge is not None
    assert gauge["quantiles"]["0.5"] < 1
    assert sum(gauge["histogram"]["counts"]) == len(gammas(sparse))


def test_a_stage_is_finished_when_it_is_as_ready_as_asked(shards: ShardSet) -> None:
    trainer = Trainer(tiny_network(), shards, training(epochs=9, sparsity={"stop_when_ready": 0.5}), SIZE)
    assert not trainer.finished
    half = [batch_norm(trainer.average.network, layer).weight for layer in CANDIDATES[2:]]  # 56 of 80 channels
    with torch.no_grad():
        for gamma in half:
            gamma.fill_(1e-5)
    assert not trainer.finished, "it has not trained yet"
    trainer.epoch = 1
    assert trainer.finished
    assert not Trainer(trainer.average.network, shards, training(epochs=9, sparsity={}), SIZE).finished


def test_an_ordinary_stage_has_no_gauge(shards: ShardSet) -> None:
    assert Trainer(tiny_network(), shards, training(), SIZE).gauge() is None


def test_a_sparse_stage_for_a_network_without_candidates_is_refused_before_it_starts(shards: ShardSet) -> None:
    with pytest.raises(ConfigError, match=r"sparsity: no convolution .* in scope normal; take another"):
        Trainer(without_batch_norm(), shards, training(sparsity={}), SIZE)


def test_the_penalty_is_the_same_for_any_number_of_workers(group_of_one: None, shards: ShardSet) -> None:
    config = {"batch_size": 8, "nominal_batch": 8, "epochs": 1, "optimizer": {"momentum": 0.9, "learning_rate": 0.1}}

    def moved(workers: int, **sparsity: Any) -> Trainer:
        trainer = Trainer(tiny_network(), shards, training(**config, **sparsity), SIZE, Workers(0, workers), threads=0)
        trainer.run_epoch()
        return trainer

    for workers in (1, 2, 4):
        sparse, plain = moved(workers, sparsity={"factor": 0.02}), moved(workers)
        expected = torch.full_like(gammas(plain), 0.1 * 0.02 * 1.9)
        torch.testing.assert_close(gammas(plain) - gammas(sparse), expected, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("rank", [0, 1, 2])
def test_a_worker_without_a_share_of_the_last_batch_takes_part_and_learns_nothing(
    rank: int, group_of_one: None, tmp_path: Path
) -> None:
    """Seven images in batches of 6 on three workers: the last batch has one image, and that is the third worker's."""
    config = training(batch_size=6, nominal_batch=6, epochs=1, optimizer={"momentum": 0, "weight_decay": 0})
    trainer = Trainer(tiny_network(), scenes(tmp_path, images=7), config, SIZE, Workers(rank, 3), threads=0)
    shares = list(trainer._batches())
    assert [len(batch) for batch in shares] == [2, int(rank == 2)]

    trainer._train_batch(0, shares[0])
    before = weights_of(trainer.network)
    terms = trainer._train_batch(1, shares[1])
    after = weights_of(trainer.network)
    if rank == 2:
        assert terms[1] > 0
        assert not torch.equal(before["layers.0.norm.running_mean"], after["layers.0.norm.running_mean"])
    else:
        assert terms.tolist() == [0, 0, 0]
        assert_equal(before, after)


def test_an_epoch_with_an_empty_share_ends_like_any_other(group_of_one: None, tmp_path: Path) -> None:
    trainer = Trainer(tiny_network(), scenes(tmp_path, images=7), training(batch_size=6), SIZE, Workers(0, 3))
    assert np.isfinite(trainer.run_epoch().loss["total"])


def test_a_share_of_one_image_with_maps_of_one_pixel_says_what_to_do(shards: ShardSet) -> None:
    """Eight images in batches of 7 leave one for the last."""
    network = Network(cfg_of(conv(8, 3, 32), *head(classes=3), size=(32, 32)))
    trainer = Trainer(network, shards, training(batch_size=7, nominal_batch=7), (32, 32), threads=0)
    with pytest.raises(TrainError, match=r"^epoch 1, step 2: worker 0 has one image, .*; take another batch_size"):
        trainer.run_epoch()
