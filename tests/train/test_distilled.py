"""Distilled training: the teacher stays what it is, and what it says is the same for any number of workers."""

from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_training import SIZE, scenes, tiny_bundle, tiny_network, training
from torch import Tensor

from yolo_dist.compress.distillation import STRATEGIES, DistillationConfig
from yolo_dist.compress.quantization import QuantizedNetwork
from yolo_dist.data.loader import Loader, image_batches
from yolo_dist.data.shards import ShardSet
from yolo_dist.errors import ConfigError
from yolo_dist.train.distilled import Distillation, Teacher, teacher_of
from yolo_dist.train.loop import Trainer
from yolo_dist.train.precision import Precision
from yolo_dist.train.quantized import quantized_start
from yolo_dist.train.targets import assign_all
from yolo_dist.train.workers import Workers


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> ShardSet:
    return scenes(tmp_path_factory.mktemp("scenes"), images=8)


def teacher(strategy: int = 5, **values: Any) -> Teacher:
    config = DistillationConfig(teacher="teacher", strategy=strategy, **values)
    return teacher_of(tiny_bundle(tiny_network()), tiny_bundle(tiny_network(seed=3)), config)


def weights(network: torch.nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in network.state_dict().items()}


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_every_term_is_reported_beside_the_detection_loss(strategy: int, shards: ShardSet) -> None:
    trainer = Trainer(tiny_network(), shards, training(epochs=1), SIZE, threads=0, teacher=teacher(strategy))
    loss = trainer.run_epoch().loss
    terms = [f"teacher {name}" for name in STRATEGIES[strategy].weights]
    assert list(loss) == ["box", "objectness", "class", *terms, "total"]
    assert all(loss[term] > 0 for term in terms)
    assert loss["total"] == pytest.approx(sum(loss[name] for name in loss if name != "total"))


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_without_weight_the_teacher_changes_nothing(strategy: int, shards: ShardSet) -> None:
    silent = teacher(strategy, weights=dict.fromkeys(STRATEGIES[strategy].weights, 0.0))
    taught, alone = (
        Trainer(tiny_network(), shards, training(epochs=1), SIZE, threads=0, teacher=given) for given in (silent, None)
    )
    for trainer in (taught, alone):
        trainer.run_epoch()
    for name, tensor in weights(taught.network).items():
        torch.testing.assert_close(tensor, alone.network.state_dict()[name], rtol=0, atol=0)


def test_the_teacher_runs_once_a_batch_in_eval_mode_and_stays_as_it_is(shards: ShardSet) -> None:
    given = teacher()
    before, modes = weights(given.network), []
    given.network.register_forward_hook(lambda module, *_: modes.append((module.training, torch.is_grad_enabled())))
    trainer = Trainer(tiny_network(), shards, training(epochs=1), SIZE, threads=0, teacher=given)
    trainer.run_epoch()
    assert modes == [(False, False)] * trainer.loader.steps
    assert all(torch.equal(tensor, before[name]) for name, tensor in given.network.state_dict().items())
    assert not any(parameter.requires_grad for parameter in given.network.parameters())


def test_the_averaged_network_does_not_listen(shards: ShardSet) -> None:
    trainer = Trainer(tiny_network(), shards, training(epochs=1), SIZE, threads=0, teacher=teacher())
    assert not any(layer._forward_hooks for layer in trainer.average.network.layers)


def test_a_student_follows_its_teacher(shards: ShardSet) -> None:
    """With no other loss than the teacher's the student comes to say what the teacher says."""
    given = teacher(3, weights={"scores": 1e-3, "boxes": 1e-3})
    silent = {"box_gain": 0, "objectness_gain": 0, "class_gain": 0}
    config = training(epochs=30, loss=silent)
    trainer = Trainer(tiny_network(), shards, config, SIZE, threads=0, teacher=given)
    losses = [trainer.run_epoch().loss["total"] for _ in range(30)]
    assert losses[-1] < losses[0] / 3


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_shares_of_a_batch_add_up_to_the_whole(strategy: int, shards: ShardSet) -> None:
    """Divided by the global batch's images, what two workers add is what one adds."""

    def terms(batch: Any) -> Tensor:
        student = tiny_network().eval()
        distillation = Distillation(student, teacher(strategy), Precision(False, torch.device("cpu")))
        pixels = batch.images.float() / 255
        raws = student(pixels)
        matches = assign_all(student.heads, SIZE, batch.boxes, batch.labels, batch.image_index)
        return distillation(pixels, raws, matches, global_images=8).detach()

    def batches(rank: int, size: int) -> Any:
        (batch,) = Loader(shards, SIZE, 8, rank=rank, world_size=size, threads=0).batches(0)
        return batch

    whole = terms(batches(0, 1))
    torch.testing.assert_close(terms(batches(0, 2)) + terms(batches(1, 2)), whole, rtol=1e-4, atol=1e-7)


def test_it_goes_together_with_sparsity_and_quantisation(shards: ShardSet) -> None:
    blocks = {"sparsity": {"factor": 0.01}, "quantization": {"calibration_images": 4}}
    config = training(epochs=1, **blocks)
    network = quantized_start(tiny_network(), config, lambda count: image_batches(shards, SIZE, count))
    assert isinstance(network, QuantizedNetwork)
    trainer = Trainer(network, shards, config, SIZE, threads=0, teacher=teacher())
    loss = trainer.run_epoch().loss
    assert loss["teacher features"] > 0
    assert trainer.gauge() is not None


def test_the_student_may_be_anything_that_came_from_the_teacher(shards: ShardSet, tmp_path: Path) -> None:
    """A quantised teacher, and pairs of layers that the configuration names."""
    config = training(quantization={"calibration_images": 4})
    quantized = quantized_start(tiny_network(), config, lambda count: image_batches(shards, SIZE, count))
    chosen = DistillationConfig(teacher="quantised", strategy=4, layers={2: 2})
    found = teacher_of(tiny_bundle(tiny_network()), tiny_bundle(quantized), chosen)
    assert found.layers == {2: 2}
    trainer = Trainer(tiny_network(), shards, training(epochs=1), SIZE, threads=0, teacher=found)
    assert trainer.run_epoch().loss["teacher features"] > 0


def test_pairs_of_layers_that_do_not_fit_are_refused_before_the_first_step() -> None:
    chosen = DistillationConfig(teacher="other", strategy=4, layers={0: 2})
    with pytest.raises(ConfigError, match="layer 0 of the student has stride 2, and layer 2 of the teacher"):
        teacher_of(tiny_bundle(tiny_network()), tiny_bundle(tiny_network(seed=1)), chosen)


def test_layers_are_listened_to_inside_ddp_too(group_of_one: None, shards: ShardSet) -> None:
    trainer = Trainer(tiny_network(), shards, training(epochs=1), SIZE, Workers(0, 2), threads=0, teacher=teacher())
    assert trainer.run_epoch().loss["teacher features"] > 0
