"""`layer-channel` and `layer-channel-regular`: channels first, then blocks ranked by the channels that stay."""

import numpy as np
import pytest
from drawn_gammas import plan_of, random_gammas
from small_networks import cfg_of, conv, head

from yolo_dist.compress.graph import ChannelGraph, prunable_convolutions
from yolo_dist.darknet.cfg import Layer, Shortcut
from yolo_dist.darknet.zoo import zoo_cfg

WITH_SHORTCUTS = ("yolov3", "yolov3-spp", "yolov4", "yolov3-mobilenet", "yolov3tiny-mobilenet-small")


@pytest.mark.parametrize("percent", [0.2, 0.6])
@pytest.mark.parametrize("name", WITH_SHORTCUTS)
def test_the_channels_are_those_of_slim_and_the_blocks_those_of_what_it_leaves(name: str, percent: float) -> None:
    cfg = zoo_cfg(name)
    graph = ChannelGraph.from_cfg(cfg)
    gammas = random_gammas(graph)
    slim = plan_of(graph, gammas, "slim", percent=percent)
    left = {layer: gammas[layer][list(slim.keep.get(layer, range(len(gammas[layer]))))] for layer in gammas}
    shortcuts = [index for index, layer in enumerate(cfg.layers) if isinstance(layer, Shortcut)]
    lowest = sorted(shortcuts, key=lambda index: float(left[index - 1].mean(dtype=np.float64)))[:4]

    plan = plan_of(graph, gammas, "layer-channel", percent=percent, shortcuts=4)

    assert plan.keep == slim.keep
    assert [block.shortcut for block in plan.blocks] == sorted(lowest)


@pytest.mark.parametrize("name", WITH_SHORTCUTS)
def test_the_regular_one_rounds_what_shortcut_leaves(name: str) -> None:
    graph = ChannelGraph.from_cfg(zoo_cfg(name))
    gammas = random_gammas(graph)
    shortcut = plan_of(graph, gammas, "shortcut", percent=0.3)
    plan = plan_of(graph, gammas, "layer-channel-regular", percent=0.3, shortcuts=2)
    for layer in prunable_convolutions(graph, "classic"):
        before = len(shortcut.keep[layer])
        assert len(plan.keep[layer]) == min(-(-before // 32) * 32, plan.channels[layer])
        assert set(shortcut.keep[layer]) <= set(plan.keep[layer])
    assert len(plan.blocks) == 2


def test_a_block_is_ranked_by_what_is_left_of_it() -> None:
    """Block 1 has many weak channels and some strong ones: without the weak ones it outweighs block 2."""
    block: tuple[Layer, ...] = (conv(2), conv(4), Shortcut(from_layer=-3))
    graph = ChannelGraph.from_cfg(cfg_of(conv(4), *block, *block, *head()))
    gammas = {layer: np.ones(len(graph.outputs[layer]), np.float32) for layer in graph.convolutions()}
    gammas[0] = np.array([0.1, 0.1, 0.1, 0.9], np.float32)
    gammas[2] = np.array([0.1, 0.1, 0.1, 0.9], np.float32)
    gammas[5] = np.array([0.1, 0.2, 0.2, 0.8], np.float32)
    assert [one.shortcut for one in plan_of(graph, gammas, "layer", shortcuts=1).blocks] == [3]
    plan = plan_of(graph, gammas, "layer-channel", percent=0.56, shortcuts=1)
    assert plan.keep[2] == plan.keep[5] == (3,)
    assert [one.shortcut for one in plan.blocks] == [6]
