"""The channel graph: which channels are one, which may go, which convolutions compete."""

import numpy as np
import pytest
from small_networks import cfg_of, conv, depthwise, head

from yolo_dist.compress.graph import ChannelGraph, plain_convolutions
from yolo_dist.darknet.cfg import (
    Avgpool,
    Convolutional,
    Dropout,
    Layer,
    Maxpool,
    Route,
    Shortcut,
    SqueezeExcite,
    Upsample,
    parse_cfg,
)
from yolo_dist.darknet.shapes import infer_shapes
from yolo_dist.darknet.zoo import ZOO, zoo_cfg
from yolo_dist.errors import CfgError


def graph_of(*layers: Layer) -> ChannelGraph:
    cfg = cfg_of(*layers)
    infer_shapes(cfg)
    return ChannelGraph.from_cfg(cfg)


def every(start: int, step: int, count: int) -> list[int]:
    return list(range(start, start + step * count, step))


YOLOV3_BACKBONE = [0, 2, 6, 9, *every(13, 3, 8), *every(38, 3, 8), *every(63, 3, 4)]
YOLOV4_BACKBONE = [
    *(0, 1, 2, 5, 8, 10),
    *(11, 12, 15, 18, 21, 23),
    *(24, 25, *every(28, 3, 8), 52, 54),
    *(55, 56, *every(59, 3, 8), 83, 85),
    *(86, 87, *every(90, 3, 4), 102, 104),
]
YOLOV4_NECK = [105, 106, 114, 115, 116, 120, *range(122, 127), 130, *range(132, 138)]
YOLOV4_DOWN = [141, *range(143, 149), 152, *range(154, 160)]

CLASSIC = {
    "yolov3": [*YOLOV3_BACKBONE, *range(75, 81), *range(87, 93), *range(99, 105)],
    "yolov3-spp": [*YOLOV3_BACKBONE, 75, 76, *range(84, 88), *range(94, 100), *range(106, 112)],
    "yolov3-tiny": [0, 2, 4, 6, 8, 10, 12, 13, 14, 21],
    "yolov3-tiny-3l": [0, 2, 4, 6, 8, 10, 12, 13, 14, 21, 28],
    "yolov3-mobilenet": [64, *range(65, 71), *range(77, 83), *range(89, 95)],
    "yolov3tiny-mobilenet-small": [0, 4, 49, 50, 51, 58],
    "yolov4": [*YOLOV4_BACKBONE, *YOLOV4_NECK, *YOLOV4_DOWN],
    "yolov4-tiny": [0, 1, 4, 5, 7, 12, 13, 15, 20, 21, 23, 26, 27, 28, 35],
}
"""Plain candidates, read off the published layer tables."""

LEFT_OUT = {
    "yolov3": [84, 96],
    "yolov3-spp": [77, 91, 103],
    "yolov3-tiny": [18],
    "yolov3-tiny-3l": [18, 25],
    "yolov3-mobilenet": [1, 5, 8, 12, 16, 21, 26, 29, 33, 37, 41, 45, 50, 54, 59, 74, 86],
    "yolov3tiny-mobilenet-small": [1, 5, 8, 12, 16, 21, 26, 30, 35, 39, 44, 55],
    "yolov4": [107, 117, 127],
    "yolov4-tiny": [32],
}
"""What only the full scope cuts: before upsampling, spatial pyramid or depthwise; grouped routes stay whole."""


@pytest.mark.parametrize("name", ZOO)
def test_plain_candidates_of_the_zoo_are_those_read_off_its_tables(name: str) -> None:
    graph = ChannelGraph.from_cfg(zoo_cfg(name))
    assert plain_convolutions(graph, "classic") == CLASSIC[name]
    assert plain_convolutions(graph, "full") == sorted(CLASSIC[name] + LEFT_OUT[name])


def test_yolov3_has_the_published_number_of_candidates() -> None:
    assert len(CLASSIC["yolov3"]) == 42


@pytest.mark.parametrize(
    ("name", "tied"),
    [
        ("yolov3", [1, 3, 5, 7, 10, 12, *every(14, 3, 8), 37, *every(39, 3, 8), 62, *every(64, 3, 4)]),
        ("yolov3-tiny", []),
        ("yolov4-tiny", []),
        (
            "yolov4",
            [4, 6, 14, 16, 19, 27, *every(29, 3, 8), 58, *every(60, 3, 8), 89, *every(91, 3, 4)],
        ),
        ("yolov3-mobilenet", [0, 3, 7, 10, 15, 19, 24, 28, 31, 35, 39, 44, 48, 53, 57, 62]),
        ("yolov3tiny-mobilenet-small", [7, 10, 15, 19, 24, 29, 33, 38, 42, 47]),
    ],
)
def test_tied_convolutions_of_the_zoo_are_those_that_feed_shortcuts(name: str, tied: list[int]) -> None:
    assert sorted(ChannelGraph.from_cfg(zoo_cfg(name)).tied()) == tied


def test_a_shortcut_makes_channels_one() -> None:
    graph = graph_of(conv(4), conv(6), conv(4), Shortcut(from_layer=-3), conv(2))
    assert graph.outputs[0].tolist() == graph.outputs[2].tolist() == graph.outputs[3].tolist()
    assert graph.inputs[4].tolist() == graph.outputs[0].tolist()
    assert graph.tied() == {0, 2}
    assert plain_convolutions(graph, "full") == [1, 4]


def test_a_chain_of_shortcuts_makes_one_set_of_all() -> None:
    block: list[Layer] = [conv(2), conv(4), Shortcut(from_layer=-3)]
    graph = graph_of(conv(4), *block, *block, *block)
    for layer in (2, 3, 5, 6, 8, 9):
        assert graph.outputs[layer].tolist() == graph.outputs[0].tolist()
    assert graph.tied() == {0, 2, 5, 8}


def test_a_shortcut_of_three_ties_all_of_them() -> None:
    graph = graph_of(conv(3), conv(3), conv(3), Shortcut(from_layer=(-2, -3)))
    assert graph.tied() == {0, 1, 2}


def test_a_shortcut_of_concatenations_ties_piece_by_piece() -> None:
    graph = graph_of(conv(2), conv(3), Route(layers=(0, 1)), conv(5), Shortcut(from_layer=-2))
    assert graph.outputs[3].tolist() == [*graph.outputs[0].tolist(), *graph.outputs[1].tolist()]
    assert graph.tied() == {0, 1, 3}


@pytest.mark.parametrize(
    "layer",
    [
        depthwise(4, 3),
        depthwise(4, 3, batch_normalize=0),
        conv(4, 3, groups=4),
        SqueezeExcite(filters=4, reduction=2),
        Maxpool(size=2, stride=2),
        Avgpool(),
        Upsample(),
        Dropout(),
        Route(layers=-1),
    ],
    ids=lambda layer: layer.section + (f" groups={layer.groups}" if isinstance(layer, Convolutional) else ""),
)
def test_layers_that_make_no_channels_hand_them_on(layer: Layer) -> None:
    graph = graph_of(conv(4, stride=2), layer, conv(2))
    assert graph.outputs[1].tolist() == graph.outputs[0].tolist()
    assert graph.inputs[2].tolist() == graph.outputs[0].tolist()
    assert list(graph.convolutions()) == [0, 2]
    assert not graph.is_frozen(0)


@pytest.mark.parametrize("layer", [depthwise(4, 3), conv(4, 3, groups=4)], ids=["depthwise", "convolutional groups=4"])
def test_depthwise_is_known_under_both_names_and_the_classic_scope_leaves_its_producer_out(layer: Layer) -> None:
    graph = graph_of(conv(4), layer, conv(2))
    assert graph.is_depthwise(1)
    assert graph.classic_exclusions() == {0}
    assert plain_convolutions(graph, "classic") == [2]
    assert plain_convolutions(graph, "full") == [0, 2]


def test_a_convolution_of_one_channel_is_no_depthwise_one() -> None:
    graph = graph_of(conv(1), conv(1, 3))
    assert not graph.is_depthwise(1)
    assert graph.outputs[0].tolist() != graph.outputs[1].tolist()


def test_a_route_concatenates_in_its_order() -> None:
    graph = graph_of(conv(2), conv(3), Route(layers=(-1, 0)))
    assert graph.outputs[2].tolist() == [*graph.outputs[1].tolist(), *graph.outputs[0].tolist()]


def test_a_grouped_route_slices_each_of_its_sources_and_freezes_them_whole() -> None:
    graph = graph_of(conv(4), conv(6), Route(layers=(0, 1), groups=2, group_id=1), conv(2))
    assert graph.outputs[2].tolist() == [*graph.outputs[0][2:].tolist(), *graph.outputs[1][3:].tolist()]
    assert graph.is_frozen(0)
    assert graph.is_frozen(1)
    assert graph.classic_exclusions() == {0, 1}
    assert plain_convolutions(graph, "full") == [3]


def test_grouped_convolutions_freeze_what_they_read_and_write() -> None:
    graph = graph_of(conv(4), conv(6, groups=2), conv(2))
    assert graph.is_frozen(0)
    assert graph.is_frozen(1)
    assert plain_convolutions(graph, "classic") == plain_convolutions(graph, "full") == [2]


def test_heads_and_convolutions_without_batch_norm_are_frozen() -> None:
    graph = graph_of(conv(4), conv(6, batch_normalize=0), conv(5), *head())
    assert [index for index in range(5) if graph.is_frozen(index)] == [1, 3, 4]
    assert list(graph.convolutions()) == [0, 2]


def test_what_is_tied_to_a_frozen_convolution_is_frozen() -> None:
    graph = graph_of(conv(4, batch_normalize=0), conv(4), Shortcut(from_layer=-2), conv(3))
    assert graph.is_frozen(1)
    assert not graph.is_frozen(3)


def test_the_channels_of_the_image_are_frozen() -> None:
    graph = graph_of(conv(2))
    assert graph.frozen[graph.inputs[0]].all()
    assert len(graph.inputs[0]) == 3


PYRAMID: list[Layer] = [
    conv(4),
    Maxpool(size=5, stride=1),
    Route(layers=-2),
    Maxpool(size=9, stride=1),
    Route(layers=(-1, -3, -4)),
    conv(2),
]


def test_the_producer_of_a_spatial_pyramid_is_left_out_in_the_classic_scope() -> None:
    graph = graph_of(*PYRAMID)
    assert graph.classic_exclusions() == {0}
    assert graph.inputs[5].tolist() == graph.outputs[0].tolist() * 3


def test_the_producer_of_an_ordinary_pool_is_not_left_out() -> None:
    assert graph_of(conv(4), Maxpool(size=2, stride=2), conv(2)).classic_exclusions() == frozenset()


def test_the_producer_of_an_upsampling_is_left_out_in_the_classic_scope() -> None:
    assert graph_of(conv(4, stride=2), Upsample(), conv(2)).classic_exclusions() == {0}


def test_consumers_are_the_layers_that_read_a_layer() -> None:
    graph = graph_of(conv(4), conv(4), Shortcut(from_layer=-2), Route(layers=(0, 1)), conv(2))
    assert graph.consumers == ((1, 2, 3), (2, 3), (), (4,), ())


def test_a_tied_channel_goes_only_if_every_mask_lets_it_go() -> None:
    graph = graph_of(conv(4), conv(4), Shortcut(from_layer=-2), conv(2))
    masks = {0: np.array([True, False, False, True]), 1: np.array([False, False, True, True])}
    kept = graph.kept_channels(masks)
    assert kept[graph.outputs[2]].tolist() == [True, False, True, True]
    assert kept[graph.outputs[3]].all()


def test_frozen_channels_stay_whatever_a_mask_says() -> None:
    graph = graph_of(conv(4, batch_normalize=0), conv(4))
    assert graph.kept_channels({0: np.zeros(4, bool)}).all()


@pytest.mark.parametrize("widths", [(4, 6), (8, 2)])
def test_shortcuts_of_unequal_layers_never_reach_the_graph(widths: tuple[int, int]) -> None:
    text = "[net]\nwidth=32\nheight=32\n" + "".join(
        f"[convolutional]\nfilters={width}\nbatch_normalize=1\n" for width in widths
    )
    with pytest.raises(CfgError, match=f"adds layers of {widths[1]} and {widths[0]} channels"):
        infer_shapes(parse_cfg(text + "[shortcut]\nfrom=-2\n"))
