"""Frozen layers stay as they are to the last bit, and the others learn as if nothing were frozen before them."""

from pathlib import Path
from typing import Any

import pytest
import torch
from small_networks import cfg_of, conv
from tiny_training import ANCHORS, SIZE, scenes, tiny_network, training
from torch import Tensor

from yolo_dist.compress.quantization import QuantizationConfig, calibrate, quantize
from yolo_dist.darknet.cfg import Route, Yolo
from yolo_dist.darknet.network import Network
from yolo_dist.darknet.zoo import zoo_cfg
from yolo_dist.data.loader import image_batches
from yolo_dist.data.shards import ShardSet
from yolo_dist.errors import ConfigError
from yolo_dist.train.freezing import FrozenLayers, frozen_layers, ranges
from yolo_dist.train.loop import Trainer
from yolo_dist.train.workers import Workers

BACKBONE = (0, 1, 2)
"""Of the tiny network: what both heads depend on."""


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> ShardSet:
    return scenes(tmp_path_factory.mktemp("scenes"), images=8)


def seen_images() -> Network:
    """A network whose batch norms have statistics of their own."""
    network = tiny_network()
    network.train()(torch.rand(4, 3, *SIZE, generator=torch.Generator().manual_seed(1)))
    return network


def state(network: Network) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in network.state_dict().items()}


def changed_layers(network: Network, before: dict[str, Tensor]) -> set[int]:
    after = network.state_dict()
    return {int(name.split(".")[1]) for name, tensor in before.items() if not torch.equal(tensor, after[name])}


def trained(network: Network, shards: ShardSet, workers: Workers | None = None, **config: Any) -> Trainer:
    trainer = Trainer(network, shards, training(freeze="backbone", **config), SIZE, workers, threads=0)
    while not trainer.finished:
        trainer.run_epoch()
    return trainer


@pytest.mark.parametrize(
    ("freeze", "layers"),
    [
        pytest.param(3, [0, 1, 2], id="the first three"),
        pytest.param(((0, 1), (3, 3)), [0, 1, 3], id="ranges"),
        pytest.param(((1, 2), (0, 1)), [0, 1, 2], id="ranges that overlap"),
        pytest.param("backbone", [0, 1, 2], id="the backbone"),
    ],
)
def test_layers_may_be_named_in_several_ways(freeze: Any, layers: list[int]) -> None:
    assert frozen_layers(tiny_network().cfg, freeze) == layers
    assert training(freeze=freeze).freeze == freeze


def test_darknet_53_alone_is_the_first_75_layers_of_yolov3() -> None:
    assert ranges(frozen_layers(zoo_cfg("yolov3"), 75)) == "0-74"


def test_runs_of_numbers_are_said_in_few_words() -> None:
    assert ranges([0, 1, 2, 5, 7, 8]) == "0-2, 5, 7-8"
    assert ranges([]) == ""


@pytest.mark.parametrize("freeze", [10, ((0, 2), (4, 9)), ((3, 2),)])
def test_layers_that_are_not_there_are_named(freeze: Any) -> None:
    with pytest.raises(ConfigError, match="are not there; the cfg has layers 0-8"):
        frozen_layers(tiny_network().cfg, freeze)


def test_a_stage_in_which_nothing_could_learn_is_refused() -> None:
    with pytest.raises(ConfigError, match="leaves no layer to train"):
        FrozenLayers(tiny_network(), 9)
    with pytest.raises(ConfigError, match="freeze keeps layers as they were trained, and from_scratch makes them new"):
        training(freeze="backbone", from_scratch=True)


def test_frozen_layers_and_their_statistics_stay_and_all_others_learn(shards: ShardSet) -> None:
    network = seen_images()
    before = state(network)
    trainer = trained(network, shards, augment={"mosaic": 1})
    learning = {index for index, layer in enumerate(network.layers) if layer.state_dict()} - set(BACKBONE)
    assert changed_layers(trainer.network, before) == learning
    assert changed_layers(trainer.average.network, before) == learning
    with trainer.judged(last=True) as judged:
        assert changed_layers(judged, before) == learning


def test_other_layers_get_the_gradient_they_would_have_behind_a_network_in_evaluation(shards: ShardSet) -> None:
    """One step of the same layers, with the frozen ones computed by hand outside of the loop."""
    trainer = Trainer(seen_images(), shards, training(freeze="backbone", batch_size=8), SIZE, threads=0)
    (batch,) = trainer.loader.batches(0)
    frozen = seen_images().eval()
    wanted = frozen.forward_features(batch.images.float() / 255, BACKBONE)[1]
    got: dict[int, Tensor] = {}
    hooks = [
        trainer.network.layers[index].register_forward_hook(lambda _m, _i, out, index=index: got.update({index: out}))
        for index in BACKBONE
    ]
    trainer.run_epoch()
    for hook in hooks:
        hook.remove()
    for index in BACKBONE:
        assert not got[index].requires_grad
        torch.testing.assert_close(got[index], wanted[index])


def test_frozen_gammas_are_no_candidates_of_a_sparse_stage(shards: ShardSet) -> None:
    trainer = trained(seen_images(), shards, sparsity={"factor": 0.01})
    assert trainer.sparse is not None
    assert trainer.sparse.candidates == [3]
    gauge = trainer.gauge()
    assert gauge is not None
    assert sum(gauge["histogram"]["counts"]) == 32


def test_a_sparse_stage_with_all_candidates_frozen_is_refused(shards: ShardSet) -> None:
    with pytest.raises(ConfigError, match="all convolutions in scope normal are frozen; freeze fewer layers"):
        Trainer(tiny_network(), shards, training(freeze=4, sparsity={}), SIZE)


@pytest.mark.parametrize("fold", [False, True])
def test_frozen_layers_of_a_quantised_network_keep_their_weights_too(shards: ShardSet, fold: bool) -> None:
    network = quantize(seen_images(), QuantizationConfig(fold_batchnorm=fold))
    calibrate(network, image_batches(shards, SIZE, 4), "moving-average")
    before = {name: value for name, value in state(network).items() if ".norm." in name or ".conv." in name}
    trainer = trained(network, shards, quantization={"fold_batchnorm": fold})
    assert changed_layers(trainer.network, before) == {3, 4, 7}


def test_several_workers_need_no_gradient_of_a_frozen_layer(group_of_one: None, shards: ShardSet) -> None:
    network = seen_images()
    before = state(network)
    trained(network, shards, Workers(0, 3), batch_size=3)
    assert changed_layers(network, before) == {3, 4, 7}


def test_frozen_statistics_are_kept_as_they_are_and_no_mean_over_workers(group_of_one: None, shards: ShardSet) -> None:
    network = seen_images()
    trainer = Trainer(network, shards, training(freeze="backbone", batch_size=3), SIZE, Workers(0, 3), threads=0)
    kept = trainer.state()["network"]
    changed = {name for name, tensor in state(network).items() if not torch.equal(tensor, kept[name])}
    assert changed == {"layers.3.norm.running_mean", "layers.3.norm.running_var"}


def test_layers_on_which_no_head_depends_learn_nothing_with_one_worker_and_with_several(
    group_of_one: None, shards: ShardSet
) -> None:
    head = Yolo(mask=(0, 1, 2, 3), anchors=ANCHORS, num=4, classes=3)
    output = conv(head.channels, batch_normalize=0, activation="linear")
    for workers in (Workers(), Workers(0, 2)):
        network = Network(cfg_of(conv(8, 3, 8), conv(12), Route(layers=-2), output, head, size=SIZE))
        before = state(network)
        Trainer(network, shards, training(), SIZE, workers, threads=0).run_epoch()
        changed = {name for name, tensor in network.named_parameters() if not torch.equal(tensor, before[name])}
        assert {int(name.split(".")[1]) for name in changed} == {0, 3}


def test_a_stage_goes_on_with_the_same_layers_frozen(shards: ShardSet, tmp_path: Path) -> None:
    whole = trained(seen_images(), shards, epochs=2)
    first, second = (
        Trainer(net, shards, training(freeze="backbone"), SIZE, threads=0) for net in (seen_images(), tiny_network(4))
    )
    first.run_epoch()
    second.restore(first.state())
    second.run_epoch()
    assert changed_layers(second.network, state(whole.network)) == set()
