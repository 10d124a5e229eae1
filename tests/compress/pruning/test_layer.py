"""The method `layer`: the blocks that weigh least go."""

import numpy as np
import pytest
from drawn_gammas import Gammas, plan_of, random_gammas
from small_networks import cfg_of, conv, head

from yolo_dist.compress.graph import ChannelGraph
from yolo_dist.darknet.cfg import Layer, Shortcut
from yolo_dist.darknet.zoo import ZOO, zoo_cfg
from yolo_dist.errors import PruneError

BLOCK: tuple[Layer, ...] = (conv(2), conv(4), Shortcut(from_layer=-3))
FOUR = ChannelGraph.from_cfg(cfg_of(conv(4), *BLOCK, *BLOCK, *BLOCK, *BLOCK, *head()))


def weighing(*means: float) -> Gammas:
    """Blocks of FOUR with these mean |γ|; everything else is one."""
    gammas = {layer: np.ones(len(FOUR.outputs[layer]), np.float32) for layer in FOUR.convolutions()}
    for number, mean in enumerate(means):
        gammas[2 + 3 * number] = np.full(4, mean, np.float32)
    return gammas


@pytest.mark.parametrize(
    ("request_", "gone"),
    [
        ({"shortcuts": 0}, []),
        ({"shortcuts": 1}, [9]),
        ({"shortcuts": 3}, [3, 6, 9]),
        ({"shortcuts": 4}, [3, 6, 9, 12]),
        ({"percent": 0.5}, [6, 9]),
        ({"percent": 0.24}, []),
    ],
)
def test_the_lowest_go_as_many_as_asked_for(request_: dict[str, float], gone: list[int]) -> None:
    plan = plan_of(FOUR, weighing(0.4, 0.2, 0.1, 0.8), "layer", **request_)
    assert [block.shortcut for block in plan.blocks] == gone
    assert plan.channels == {}


@pytest.mark.parametrize(("request_", "removed"), [({"shortcuts": 0}, 0), ({"percent": 0.2}, 0), ({"shortcuts": 4}, 4)])
def test_where_all_or_none_go_nothing_needs_to_tell_them_apart(request_: dict[str, float], removed: int) -> None:
    assert len(plan_of(FOUR, weighing(0.5, 0.5, 0.5, 0.5), "layer", **request_).blocks) == removed


@pytest.mark.parametrize("request_", [{"shortcuts": 1}, {"percent": 0.5}])
def test_blocks_that_all_weigh_the_same_are_refused_whatever_else_differs(request_: dict[str, float]) -> None:
    gammas = weighing(0.5, 0.5, 0.5, 0.5)
    gammas[0] = np.array([0.1, 0.2, 0.3, 0.4], np.float32)
    with pytest.raises(PruneError, match=r"mean importance gamma is 0\.5 for all residual blocks, so nothing tells"):
        plan_of(FOUR, gammas, "layer", **request_)


def test_blocks_that_weigh_the_same_go_in_order() -> None:
    plan = plan_of(FOUR, weighing(0.5, 0.2, 0.2, 0.2), "layer", shortcuts=2)
    assert [block.shortcut for block in plan.blocks] == [6, 9]


@pytest.mark.parametrize("name", ["yolov3", "yolov3-spp", "yolov4", "yolov3-mobilenet", "yolov3tiny-mobilenet-small"])
def test_blocks_of_the_zoo_go_by_the_mean_of_the_convolution_before_the_shortcut(name: str) -> None:
    cfg = zoo_cfg(name)
    graph = ChannelGraph.from_cfg(cfg)
    gammas = random_gammas(graph)
    shortcuts = [index for index, layer in enumerate(cfg.layers) if isinstance(layer, Shortcut)]
    lowest = sorted(shortcuts, key=lambda index: float(gammas[index - 1].mean()))[:5]
    plan = plan_of(graph, gammas, "layer", shortcuts=5)
    assert [block.shortcut for block in plan.blocks] == sorted(lowest)


@pytest.mark.parametrize("method", ["layer", "layer-channel", "layer-channel-regular"])
@pytest.mark.parametrize("name", sorted(set(ZOO) & {"yolov3-tiny", "yolov3-tiny-3l", "yolov4-tiny"}))
def test_networks_without_shortcuts_are_told_what_works(name: str, method: str) -> None:
    graph = ChannelGraph.from_cfg(zoo_cfg(name))
    with pytest.raises(PruneError, match=f"method {method}: .* no shortcuts, .* try normal, regular or slim"):
        plan_of(graph, random_gammas(graph), method)


def test_more_blocks_than_there_are_is_an_error_with_the_largest_number() -> None:
    graph = ChannelGraph.from_cfg(zoo_cfg("yolov3tiny-mobilenet-small"))
    with pytest.raises(PruneError, match=r"7 residual blocks .* has 6; the largest number that works is 6 \(blocks"):
        plan_of(graph, random_gammas(graph), "layer", shortcuts=7)


def test_blocks_that_cannot_go_are_said() -> None:
    activated = Shortcut(from_layer=-3, activation="leaky")
    graph = ChannelGraph.from_cfg(cfg_of(conv(4), conv(2), conv(4), activated, *head()))
    with pytest.raises(PruneError, match=r"can go; layer 3 \[shortcut\]: it has an activation, leaky"):
        plan_of(graph, random_gammas(graph), "layer", shortcuts=1)
