"""Quantised training: ranges follow the batches and freeze, whatever the number of workers and interruptions."""

import itertools
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from tiny_training import SIZE, scenes, tiny_network, training, without_batch_norm
from torch import Tensor
from torch.nn import BatchNorm2d

from yolo_dist.compress.quantization import QuantizationConfig, QuantizedNetwork, QuantizedTrainingConfig, quantize
from yolo_dist.compress.sparsity import batch_norm
from yolo_dist.darknet.network import Network, initialize
from yolo_dist.data.loader import image_batches
from yolo_dist.data.shards import ShardSet
from yolo_dist.errors import AlreadyQuantized, ConfigError
from yolo_dist.train.loop import Trainer
from yolo_dist.train.quantized import RangeTracking, quantized_start
from yolo_dist.train.workers import Workers

INT8 = {"per_channel": True, "fold_batchnorm": True, "symmetric": "weights", "calibration_images": 4}


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> ShardSet:
    return scenes(tmp_path_factory.mktemp("scenes"), images=8)


def started(shards: ShardSet, network: Network | None = None, **config: Any) -> Trainer:
    stage = training(**{"quantization": INT8, **config})
    start = quantized_start(network or tiny_network(), stage, lambda count: image_batches(shards, SIZE, count))
    return Trainer(start, shards, stage, SIZE, threads=0)


def ranges(network: Network) -> Tensor:
    assert isinstance(network, QuantizedNetwork)
    return torch.tensor([[float(quantizer.low), float(quantizer.high)] for _, quantizer in network.quantizers()])


def statistics(network: Network) -> Tensor:
    norms = [module for module in network.modules() if isinstance(module, BatchNorm2d)]
    return torch.cat([norm.running_mean for norm in norms if norm.running_mean is not None]).clone()


def test_ranges_freeze_first_and_statistics_later(shards: ShardSet) -> None:
    """Two steps an epoch, eight in all: ranges follow for two of them, statistics for six."""
    trainer = started(shards, epochs=4, quantization=INT8 | {"freeze_ranges": 0.25, "freeze_statistics": 6})
    seen = [(ranges(trainer.network), statistics(trainer.network))]
    for _ in range(4):
        trainer.run_epoch()
        seen.append((ranges(trainer.network), statistics(trainer.network)))
    follow = [torch.equal(before[0], after[0]) for before, after in itertools.pairwise(seen)]
    learn = [torch.equal(before[1], after[1]) for before, after in itertools.pairwise(seen)]
    assert follow == [False, True, True, True]
    assert learn == [False, False, False, True]


def test_a_range_is_the_moving_average_of_what_batches_reached(shards: ShardSet) -> None:
    trainer = started(shards, epochs=1, quantization=INT8 | {"freeze_ranges": 1})
    assert isinstance(trainer.network, QuantizedNetwork)
    (_, first), *_ = trainer.network.quantizers()
    expected, reached = first.high.clone(), []
    first.register_forward_pre_hook(lambda _, inputs: reached.append(inputs[0].max()))
    trainer.run_epoch()
    assert len(reached) == 2
    for highest in reached:
        expected = 0.9 * expected + 0.1 * highest
    torch.testing.assert_close(first.high, expected)


def test_the_averaged_network_has_the_ranges_of_the_trained_one(shards: ShardSet) -> None:
    trainer = started(shards, epochs=1, quantization=INT8 | {"freeze_ranges": 1})
    trainer.run_epoch()
    assert torch.equal(ranges(trainer.average.network), ranges(trainer.network))


def test_stopped_and_resumed_training_ends_in_the_same_weights_and_ranges(shards: ShardSet) -> None:
    config: dict[str, Any] = {"epochs": 4, "quantization": INT8 | {"freeze_ranges": 0.6}}
    whole = started(shards, **config)
    stopped = started(shards, **config)
    for _ in range(2):
        whole.run_epoch()
        stopped.run_epoch()
    resumed = started(shards, network=tiny_network(seed=5), **config)
    resumed.restore(stopped.state())
    for trainer in (whole, resumed):
        for _ in range(2):
            trainer.run_epoch()
    for ours, theirs in ((whole.network, resumed.network), (whole.average.network, resumed.average.network)):
        for (name, mine), other in zip(ours.state_dict().items(), theirs.state_dict().values(), strict=True):
            assert torch.equal(mine, other), name


@dataclass(frozen=True)
class Partner(Workers):
    """A worker whose partner has seen what is told here, and nothing but zeros in its batch norms."""

    seen: Tensor = field(default_factory=lambda: torch.zeros(0))

    def largest(self, tensor: Tensor) -> Tensor:
        return torch.maximum(tensor, self.seen)

    def average_(self, tensors: list[Tensor]) -> None:
        for tensor in tensors:
            tensor.div_(2)


def test_workers_agree_on_the_ranges_of_the_whole_batch() -> None:
    images = torch.rand(4, 3, *SIZE, generator=torch.Generator().manual_seed(1))
    config = QuantizedTrainingConfig(freeze_ranges=1)

    def tracked(images: Tensor, workers: Workers) -> tuple[Tensor, Tensor]:
        network = quantize(without_batch_norm(), config.settled)
        for _, quantizer in network.quantizers():
            quantizer.set_range(torch.tensor(-1.0), torch.tensor(1.0))
        tracking = RangeTracking(network, config, 10, workers)
        tracking.before_batch(0, training=True)
        network(images)
        seen = torch.stack(tracking.seen)
        tracking.after_step(0)
        return ranges(network), seen

    whole, _ = tracked(images, Workers())
    _, first = tracked(images[:2], Workers())
    _, second = tracked(images[2:], Workers())
    for half, seen in ((images[:2], second), (images[2:], first)):
        torch.testing.assert_close(tracked(half, Partner(seen=seen))[0], whole)
    assert not torch.equal(tracked(images[:2], Workers())[0], whole)


def test_workers_freeze_the_mean_of_their_statistics_within_an_epoch() -> None:
    network = quantize(tiny_network(), QuantizationConfig())
    config = QuantizedTrainingConfig(freeze_ranges=1, freeze_statistics=2.5)
    tracking = RangeTracking(network, config, 10, Partner(seen=torch.zeros(1)))
    variances = []
    for step in range(5):
        tracking.after_step(step)
        variances.append(float(batch_norm(network, 0).running_var[0]))  # type: ignore[index]
    assert variances == [1, 1, 0.5, 0.5, 0.5]


def test_a_worker_without_a_share_of_the_batch_tells_nothing() -> None:
    network = quantize(without_batch_norm(), QuantizationConfig())
    tracking = RangeTracking(network, QuantizedTrainingConfig(freeze_ranges=1), 10, Workers())
    tracking.before_batch(0, training=False)
    assert all(quantizer.watch is None for _, quantizer in network.quantizers())
    assert torch.stack(tracking.seen).isinf().all()


def test_sparsity_and_quantisation_train_together(shards: ShardSet) -> None:
    def scales(**config: Any) -> Tensor:
        trainer = started(shards, epochs=3, **config)
        for _ in range(3):
            trainer.run_epoch()
        return torch.cat([batch_norm(trainer.network, layer).weight.detach().abs() for layer in range(4)])

    assert (scales(sparsity={"factor": 0.5}) < scales()).all()


@pytest.mark.parametrize(
    ("key", "point", "problem"),
    [
        ("freeze_ranges", 5, "freeze_ranges is step 5, and the stage has only 4 optimizer steps"),
        ("freeze_statistics", 40, "freeze_statistics is step 40, and the stage has only 4 optimizer steps"),
    ],
)
def test_freezing_after_the_last_step_is_refused(shards: ShardSet, key: str, point: float, problem: str) -> None:
    with pytest.raises(ConfigError, match=f"quantization: {problem}"):
        started(shards, epochs=2, quantization=INT8 | {key: point})


def test_a_quantised_start_stays_as_it_is_unless_the_stage_asks_for_another(shards: ShardSet) -> None:
    trainer = started(shards)
    kept = quantized_start(trainer.network, training(), lambda _: [])
    assert kept is trainer.network
    assert quantized_start(trainer.network, training(quantization=INT8), lambda _: []) is trainer.network
    with pytest.raises(AlreadyQuantized, match="quantised in another way"):
        quantized_start(trainer.network, training(quantization={"weight_bits": 4}), lambda _: [])


def test_training_a_quantised_start_without_the_block_leaves_its_ranges(shards: ShardSet) -> None:
    start = started(shards).network
    before = ranges(start)
    trainer = Trainer(start, shards, training(epochs=1), SIZE, threads=0)
    trainer.run_epoch()
    assert torch.equal(ranges(trainer.network), before)


def test_training_from_scratch_measures_ranges_anew(shards: ShardSet) -> None:
    network = started(shards).network
    before = ranges(network)
    initialize(network, seed=7)
    again = quantized_start(network, training(from_scratch=True), lambda count: image_batches(shards, SIZE, count))
    assert not torch.equal(ranges(again), before)


def test_quantised_training_learns(shards: ShardSet) -> None:
    trainer = started(shards, epochs=25)
    losses = [trainer.run_epoch().loss["total"] for _ in range(25)]
    assert losses[-1] < losses[0] / 2
