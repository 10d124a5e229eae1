"""Residual blocks: which there are in the zoo, and what is none."""

import pytest
from small_networks import cfg_of, conv, depthwise, head

from yolo_dist.compress.graph import ChannelGraph
from yolo_dist.compress.residual import ResidualBlock, residual_blocks
from yolo_dist.darknet.cfg import Layer, Route, Shortcut, SqueezeExcite
from yolo_dist.darknet.zoo import ZOO, zoo_cfg

PUBLISHED = {"yolov3": 23, "yolov3-spp": 23, "yolov4": 23, "yolov3-mobilenet": 10, "yolov3tiny-mobilenet-small": 6}
"""Darknet-53 and CSPDarknet-53 have 1 + 2 + 8 + 8 + 4 blocks (Redmon 2018, Bochkovskiy 2020), MobileNetV3 large 10 and
small 6 bottlenecks that neither change size nor width (Howard et al. 2019, tables 1 and 2)."""


def blocks_of(*layers: Layer) -> list[ResidualBlock]:
    return residual_blocks(ChannelGraph.from_cfg(cfg_of(*layers)))


@pytest.mark.parametrize("name", ZOO)
def test_every_shortcut_of_the_zoo_spans_a_block(name: str) -> None:
    graph = ChannelGraph.from_cfg(zoo_cfg(name))
    blocks = residual_blocks(graph)
    shortcuts = [index for index, layer in enumerate(graph.cfg.layers) if isinstance(layer, Shortcut)]
    assert [block.shortcut for block in blocks] == shortcuts
    assert len(blocks) == PUBLISHED.get(name, 0)
    for block in blocks:
        assert block.feeding == block.shortcut - 1
        assert block.layers == tuple(range(block.identity + 1, block.shortcut + 1))


def test_a_bottleneck_with_depthwise_and_gate_is_one_block() -> None:
    layers = (conv(4), conv(8), depthwise(8, 3), SqueezeExcite(filters=8), conv(4), Shortcut(from_layer=-5))
    assert blocks_of(*layers, *head()) == [ResidualBlock(shortcut=5, identity=0, feeding=4, branch=(1, 2, 3, 4))]


def test_a_branch_from_another_place_is_none() -> None:
    straight = (conv(4), conv(2), conv(4), Shortcut(from_layer=-3))
    aside = (conv(4), conv(2), conv(4), Route(layers=0), Shortcut(from_layer=2))
    assert [block.branch for block in blocks_of(*straight, *head())] == [(1, 2)]
    assert blocks_of(*aside, *head()) == []


@pytest.mark.parametrize(
    "layers",
    [
        pytest.param((conv(4), conv(2), conv(4), Shortcut(from_layer=-3, activation="leaky")), id="activation"),
        pytest.param((conv(4), conv(4), conv(4), Shortcut(from_layer=(-2, -3))), id="three inputs"),
        pytest.param((conv(4), conv(2), conv(4), Shortcut(from_layer=-3), Route(layers=1)), id="read from inside"),
        pytest.param((conv(4), conv(4, batch_normalize=0), Shortcut(from_layer=-2)), id="no batch norm to rank by"),
        pytest.param((conv(4), Route(layers=0), conv(4), Route(layers=0), Shortcut(from_layer=2)), id="two"),
    ],
)
def test_what_could_not_be_left_out_is_no_block(layers: tuple[Layer, ...]) -> None:
    assert blocks_of(*layers, *head()) == []
