"""Removing residual blocks: references, weights and outputs of what is left."""

from pathlib import Path

import pytest
import torch
from small_networks import cfg_of, conv, head, random_images, random_network

from yolo_dist.compress.graph import ChannelGraph
from yolo_dist.compress.pruning.layer_removal import cfg_without, remove_blocks
from yolo_dist.compress.residual import ResidualBlock, residual_blocks
from yolo_dist.darknet.cfg import Cfg, Layer, Route, Shortcut, format_cfg, parse_cfg
from yolo_dist.darknet.layers import Convolution
from yolo_dist.darknet.network import Network
from yolo_dist.darknet.shapes import infer_shapes
from yolo_dist.darknet.weights import load_weights, save_weights
from yolo_dist.darknet.zoo import zoo_cfg

BLOCK: tuple[Layer, ...] = (conv(2), conv(4, 3), Shortcut(from_layer=-3))


def blocks_of(cfg: Cfg) -> list[ResidualBlock]:
    return residual_blocks(ChannelGraph.from_cfg(cfg))


def references(cfg: Cfg) -> list[tuple[int, ...]]:
    return [
        layer.layers if isinstance(layer, Route) else layer.from_layer
        for layer in cfg.layers
        if isinstance(layer, Route | Shortcut)
    ]


@pytest.mark.parametrize(
    ("remove", "expected", "lineage"),
    [
        pytest.param([0], [(-3,), (-1, 3), (4,)], (0, 4, 5, 6, 7, 8, 9, 10, 11), id="the first"),
        pytest.param([1], [(-3,), (-1, 3), (4,)], (0, 1, 2, 3, 7, 8, 9, 10, 11), id="the second"),
        pytest.param([0, 1], [(-1, 0), (1,)], (0, 7, 8, 9, 10, 11), id="both"),
    ],
)
def test_references_are_counted_anew_and_stay_relative_or_absolute(
    remove: list[int], expected: list[tuple[int, ...]], lineage: tuple[int, ...]
) -> None:
    cfg = cfg_of(conv(4), *BLOCK, *BLOCK, conv(6), Route(layers=(-1, 6)), Route(layers=7), *head())
    shortened = cfg_without(cfg, [blocks_of(cfg)[number] for number in remove])
    assert references(shortened.cfg) == expected
    assert shortened.lineage == lineage
    infer_shapes(shortened.cfg)


def test_the_second_block_reads_what_the_first_was_added_to() -> None:
    network = random_network(conv(4), *BLOCK, *BLOCK, *head())
    compact, _ = remove_blocks(network, blocks_of(network.cfg)[:1])
    images = random_images()
    with torch.inference_mode():
        first = network.layers[0](images)
        hidden = network.layers[5](network.layers[4](first))
        expected = network.layers[7](first + hidden)
        _, features = compact.forward_features(images, [4])
    assert torch.equal(features[4], expected)


def test_a_layer_that_would_read_another_one_gets_a_route() -> None:
    """Layer 5 read the sum before it; once the block is gone, a stranger that lay inside is before it."""
    cfg = cfg_of(conv(4), conv(3), Route(layers=0), conv(4, 3), Shortcut(from_layer=0), conv(5), Route(layers=(-1, 1)))
    (block,) = blocks_of(cfg)
    assert block.layers == (2, 3, 4)
    shortened = cfg_without(cfg, [block])
    assert shortened.lineage == (0, 1, None, 5, 6)
    assert references(shortened.cfg) == [(-2,), (-1, 1)]
    infer_shapes(shortened.cfg)


def test_what_is_left_survives_darknets_files(tmp_path: Path) -> None:
    network = Network(zoo_cfg("yolov4", classes=3, image_size=(64, 64), width=0.125)).eval()
    compact, lineage = remove_blocks(network, blocks_of(network.cfg)[3:9])
    (tmp_path / "model.cfg").write_text(format_cfg(compact.cfg))
    save_weights(compact, tmp_path / "model.weights")
    again = Network(parse_cfg((tmp_path / "model.cfg").read_text())).eval()
    load_weights(again, tmp_path / "model.weights")
    with torch.inference_mode():
        for ours, theirs in zip(compact(random_images(1, (64, 64))), again(random_images(1, (64, 64))), strict=True):
            assert torch.equal(ours, theirs)
    assert len(lineage) == len(compact.layers) == len(network.layers) - 6 * 3


def test_weights_are_those_of_the_layers_they_were() -> None:
    network = random_network(conv(4), *BLOCK, *BLOCK, *head())
    compact, lineage = remove_blocks(network, blocks_of(network.cfg)[:1])
    for layer, origin in zip(compact.layers, lineage, strict=True):
        if isinstance(layer, Convolution):
            assert origin is not None
            before = network.layers[origin].state_dict()
            assert all(torch.equal(value, before[name]) for name, value in layer.state_dict().items())


def test_nothing_to_remove_gives_the_network_itself() -> None:
    network = random_network(conv(4), *BLOCK, *head())
    assert remove_blocks(network, []) == (network, tuple(range(6)))
