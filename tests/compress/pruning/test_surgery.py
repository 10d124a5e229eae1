"""Surgery: the compact network is the masked one, for every backbone, on disk too, again and again."""

from pathlib import Path

import numpy as np
import pytest
import torch
from small_networks import cfg_of, conv, depthwise, head, random_images, random_network, randomize

from yolo_dist.compress.graph import ChannelGraph, Scope, plain_convolutions
from yolo_dist.compress.pruning import PruneConfig, make_plan
from yolo_dist.compress.pruning.compensation import compensate
from yolo_dist.compress.pruning.proof import TOLERANCE, changed_channels, compare_outputs
from yolo_dist.compress.pruning.reestimation import reestimate_batchnorm
from yolo_dist.compress.pruning.surgery import compact_cfg, cut
from yolo_dist.darknet.cfg import Convolutional, Depthwise, Route, Shortcut, SqueezeExcite, format_cfg, read_cfg
from yolo_dist.darknet.network import Network
from yolo_dist.darknet.shapes import count_parameters, infer_shapes
from yolo_dist.darknet.weights import load_weights, save_weights, weights_bytes
from yolo_dist.darknet.zoo import ZOO, zoo_cfg

SIZE = (64, 64)


def pruned(network: Network, percent: float, scope: Scope) -> Network:
    """The compact network, after masked and compact outputs were found equal."""
    graph = ChannelGraph.from_cfg(network.cfg)
    plan = make_plan(network, PruneConfig(percent=percent, scope=scope))
    kept = graph.kept_channels(plan.masks())
    full = compensate(network, graph, kept)
    compact = cut(full, graph, kept)
    assert compare_outputs(full, compact, graph, kept, random_images(2, SIZE)).max_abs_difference <= TOLERANCE
    assert count_parameters(compact.cfg) == sum(parameter.numel() for parameter in compact.parameters())
    return compact


def alive(network: Network) -> Network:
    """Random numbers, and statistics that keep the outputs of a deep network in the usual range."""
    randomize(network)
    reestimate_batchnorm(network, [random_images(2, SIZE, seed=1)])
    return network


def through_files(network: Network, folder: Path) -> Network:
    """The network written as Darknet's two files and read back."""
    (folder / "model.cfg").write_text(format_cfg(network.cfg))
    save_weights(network, folder / "model.weights")
    again = Network(read_cfg(folder / "model.cfg")).eval()
    load_weights(again, folder / "model.weights")
    return again


@pytest.mark.parametrize("name", ZOO)
def test_every_backbone_can_be_cut_in_both_scopes_and_after_a_trip_through_files_again(
    name: str, tmp_path: Path
) -> None:
    network = alive(Network(zoo_cfg(name, classes=3, image_size=SIZE, width=0.125)))
    once = through_files(pruned(network, 0.5, "classic"), tmp_path)
    for compact in (pruned(network, 0.5, "full"), pruned(once, 0.3, "full")):
        assert count_parameters(compact.cfg) < count_parameters(network.cfg)
        with torch.inference_mode():
            for raw, original in zip(compact(random_images(1, SIZE)), network(random_images(1, SIZE)), strict=True):
                assert raw.shape == original.shape
                assert torch.isfinite(raw).all()


def test_a_public_network_with_grouped_convolutions_can_be_cut(shared_data: Path, tmp_path: Path) -> None:
    network = Network(read_cfg(shared_data / "weights" / "yolo-fastest-1.1.cfg")).eval()
    load_weights(network, shared_data / "weights" / "yolo-fastest-1.1.weights")
    once = through_files(pruned(network, 0.2, "classic"), tmp_path)
    twice = pruned(once, 0.2, "full")
    assert count_parameters(twice.cfg) < count_parameters(once.cfg) < count_parameters(network.cfg)


def test_what_is_written_is_read_back_to_the_bit(tmp_path: Path) -> None:
    network = alive(Network(zoo_cfg("yolov3tiny-mobilenet-small", classes=3, image_size=SIZE, width=0.125)))
    compact = pruned(network, 0.5, "full")
    again = through_files(compact, tmp_path)
    assert again.cfg == compact.cfg
    with torch.inference_mode():
        for ours, theirs in zip(compact(random_images(1, SIZE)), again(random_images(1, SIZE)), strict=True):
            assert torch.equal(ours, theirs)


def test_the_weights_that_stay_are_those_of_the_kept_channels() -> None:
    network = random_network(conv(4, 3), conv(3), *head())
    graph = ChannelGraph.from_cfg(network.cfg)
    kept = graph.kept_channels({0: np.array([True, False, True, False]), 1: np.array([False, True, True])})
    compact = cut(network, graph, kept)
    before, after = network.state_dict(), compact.state_dict()
    assert torch.equal(after["layers.0.conv.weight"], before["layers.0.conv.weight"][[0, 2]])
    assert torch.equal(after["layers.0.norm.running_var"], before["layers.0.norm.running_var"][[0, 2]])
    assert torch.equal(after["layers.1.conv.weight"], before["layers.1.conv.weight"][[1, 2]][:, [0, 2]])
    assert torch.equal(after["layers.2.conv.weight"], before["layers.2.conv.weight"][:, [1, 2]])
    assert torch.equal(after["layers.2.conv.bias"], before["layers.2.conv.bias"])


def test_only_counts_change_in_the_cfg() -> None:
    cfg = cfg_of(
        conv(6),
        depthwise(6, 3),
        SqueezeExcite(filters=6, reduction=2),
        conv(4),
        conv(4, 3, groups=4),
        conv(4),
        Shortcut(from_layer=-3),
        Route(layers=(-1, 2)),
        *head(),
    )
    graph = ChannelGraph.from_cfg(cfg)
    compact = compact_cfg(graph, graph.kept_channels({0: np.arange(6) < 5}))
    first, second, gate = compact.layers[:3]
    assert isinstance(first, Convolutional)
    assert isinstance(second, Depthwise)
    assert isinstance(gate, SqueezeExcite)
    assert first.filters == second.filters == gate.filters == 5
    assert gate.hidden_channels == 3  # 6 // 2, as it was
    assert compact.layers[3:] == cfg.layers[3:]
    infer_shapes(compact)


def test_a_depthwise_convolution_under_its_other_name_loses_groups_with_filters() -> None:
    cfg = cfg_of(conv(6), conv(6, 3, groups=6), *head())
    graph = ChannelGraph.from_cfg(cfg)
    layer = compact_cfg(graph, graph.kept_channels({0: np.arange(6) < 2})).layers[1]
    assert isinstance(layer, Convolutional)
    assert (layer.filters, layer.groups) == (2, 2)


def test_a_network_whose_depthwise_is_cut_to_one_channel_is_still_one() -> None:
    network = random_network(conv(6), conv(6, 3, groups=6), conv(4), *head())
    graph = ChannelGraph.from_cfg(network.cfg)
    kept = graph.kept_channels({0: np.arange(6) == 3})
    compact = cut(network, graph, kept)
    assert compare_outputs(network, compact, graph, kept, random_images()).max_abs_difference <= TOLERANCE


def test_percent_zero_gives_the_same_network_to_the_bit() -> None:
    network = alive(Network(zoo_cfg("yolov4-tiny", classes=3, image_size=SIZE, width=0.125)))
    compact = pruned(network, 0.0, "full")
    assert compact.cfg == network.cfg
    assert changed_channels(network, compact) == ()
    assert weights_bytes(compact) == weights_bytes(network)


def test_the_classic_scope_leaves_its_exclusions_whole() -> None:
    network = alive(Network(zoo_cfg("yolov3-tiny", classes=3, image_size=SIZE, width=0.125)))
    graph = ChannelGraph.from_cfg(network.cfg)
    touched = {change["layer"] for change in changed_channels(network, pruned(network, 0.5, "classic"))}
    assert touched
    assert touched <= set(plain_convolutions(graph, "classic"))


def test_the_training_mode_is_kept() -> None:
    network = random_network(conv(4), *head())
    graph = ChannelGraph.from_cfg(network.cfg)
    kept = graph.kept_channels({0: np.arange(4) < 2})
    assert not cut(network, graph, kept).training
    assert cut(network.train(), graph, kept).training
