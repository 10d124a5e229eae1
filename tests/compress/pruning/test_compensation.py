"""Compensation: dead channels and blocks go, and the network's outputs stay what they were."""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from small_networks import conv, depthwise, head, random_images, random_network
from torch import Tensor

from yolo_dist.compress.graph import ChannelGraph
from yolo_dist.compress.pruning.carry_out import Compact, carry_out
from yolo_dist.compress.pruning.compensation import compensate
from yolo_dist.compress.pruning.plan import PrunePlan
from yolo_dist.compress.pruning.surgery import cut
from yolo_dist.compress.residual import residual_blocks
from yolo_dist.compress.sparsity import batch_norm
from yolo_dist.darknet.cfg import Avgpool, Dropout, Layer, Maxpool, Route, Shortcut, SqueezeExcite, Upsample
from yolo_dist.darknet.network import Network


def without_dead_channels(network: Network, dead: dict[int, list[int]]) -> tuple[Network, Network]:
    """`network` with γ = 0 in its `dead` channels (layer → channels), and the compensated one that lost them."""
    graph = ChannelGraph.from_cfg(network.cfg)
    masks: dict[int, NDArray[np.bool_]] = {}
    for layer, channels in dead.items():
        masks[layer] = np.isin(np.arange(len(graph.outputs[layer])), channels, invert=True)
        with torch.no_grad():
            batch_norm(network, layer).weight[channels] = 0
    kept = graph.kept_channels(masks)
    return network, cut(compensate(network, graph, kept), graph, kept)


@torch.inference_mode()
def outputs(network: Network, images: Tensor) -> list[Tensor]:
    return network(images)  # type: ignore[no-any-return]


EXACT: dict[str, tuple[list[Layer], dict[int, list[int]]]] = {
    "read by a batch norm": ([conv(6), conv(5)], {0: [1, 4]}),
    "read by a bias": ([conv(6)], {0: [0, 5]}),
    "read by a convolution with a bias and an activation": ([conv(6), conv(5, batch_normalize=0)], {0: [2]}),
    "two layers in a row": ([conv(6), conv(5), conv(4)], {0: [1, 4], 1: [0, 2]}),
    "mish": ([conv(6, activation="mish"), conv(5)], {0: [1, 4]}),
    "logistic": ([conv(6, activation="logistic"), conv(5)], {0: [1, 4]}),
    "strided": ([conv(6, stride=2), conv(5)], {0: [1, 4]}),
    "upsampled": ([conv(6, stride=2), Upsample(), conv(5)], {0: [1, 4]}),
    "pooled": ([conv(6), Maxpool(size=2, stride=2), conv(5)], {0: [1, 4]}),
    "pooled beyond the border": ([conv(6), Maxpool(size=3, stride=1), conv(5)], {0: [1, 4]}),
    "averaged": ([conv(6), Avgpool(), conv(5)], {0: [1, 4]}),
    "through dropout": ([conv(6), Dropout(), conv(5)], {0: [1, 4]}),
    "concatenated": ([conv(6), conv(4), Route(layers=(-1, 0)), conv(5)], {0: [1, 4], 1: [3]}),
    "concatenated twice": ([conv(6), Route(layers=(0, 0)), conv(5)], {0: [1, 4]}),
    "spatial pyramid": (
        [conv(6), Maxpool(size=5, stride=1), Route(layers=-2), Maxpool(size=9, stride=1), Route(layers=(3, 1, 0))],
        {0: [1, 4]},
    ),
    "depthwise": ([conv(6), depthwise(6), conv(5)], {0: [1, 4]}),
    "depthwise with a bias": ([conv(6), depthwise(6, batch_normalize=0), conv(5)], {0: [1, 4]}),
    "depthwise as a grouped convolution": ([conv(6), conv(6, groups=6, activation="relu6"), conv(5)], {0: [1, 4]}),
    "two depthwise in a row": ([conv(6), depthwise(6), depthwise(6), conv(5)], {0: [1, 4]}),
    "a sum": ([conv(6), conv(6), Shortcut(from_layer=-2), conv(5)], {0: [1, 4], 1: [1, 4]}),
    "a sum with an activation": (
        [conv(6), conv(6), Shortcut(from_layer=-2, activation="leaky"), conv(5)],
        {0: [1, 4], 1: [1, 4]},
    ),
    "a sum whose activation is not zero at zero": (
        [conv(6), conv(6), Shortcut(from_layer=-2, activation="logistic"), conv(5)],
        {0: [1, 4], 1: [1, 4]},
    ),
    "a sum of one layer with itself": ([conv(6), Shortcut(from_layer=-1), conv(5)], {0: [1, 4]}),
}


@pytest.mark.parametrize(("layers", "dead"), EXACT.values(), ids=EXACT.keys())
def test_without_padding_the_compact_network_says_what_the_full_one_said(
    layers: list[Layer], dead: dict[int, list[int]]
) -> None:
    full, compact = without_dead_channels(random_network(*layers, *head(), seed=3), dead)
    images = random_images()
    (before,), (after,) = outputs(full, images), outputs(compact, images)
    assert before.std() > 1e-3
    torch.testing.assert_close(after, before, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["read by a batch norm", "read by a bias", "depthwise", "a sum", "pooled"])
def test_without_compensation_it_does_not(name: str) -> None:
    layers, dead = EXACT[name]
    full, _ = without_dead_channels(random_network(*layers, *head(), seed=3), dead)
    graph = ChannelGraph.from_cfg(full.cfg)
    kept = graph.kept_channels(
        {layer: np.isin(np.arange(len(graph.outputs[layer])), gone, invert=True) for layer, gone in dead.items()}
    )
    (before,), (after,) = outputs(full, random_images()), outputs(cut(full, graph, kept), random_images())
    assert (before - after).abs().max() > 1e-3


def test_with_zero_padding_only_the_border_changes() -> None:
    full, compact = without_dead_channels(random_network(conv(6), conv(5, 3), *head()), {0: [1, 4]})
    (before,), (after,) = outputs(full, random_images()), outputs(compact, random_images())
    inside = (slice(None), slice(None), slice(1, -1), slice(1, -1))
    torch.testing.assert_close(after[inside], before[inside], rtol=1e-5, atol=1e-5)
    assert (after[:, :, 0] - before[:, :, 0]).abs().max() > 1e-3


def test_the_mean_of_a_batch_norm_falls_by_the_weights_times_the_constant() -> None:
    network = random_network(conv(2, activation="relu"), conv(1), *head())
    norm, reader = batch_norm(network, 0), batch_norm(network, 1)
    with torch.no_grad():
        norm.weight[1] = 0
        norm.bias[1] = 0.7
    before = reader.running_mean.clone()  # type: ignore[union-attr]
    graph = ChannelGraph.from_cfg(network.cfg)
    kept = graph.kept_channels({0: np.array([True, False])})
    mended = batch_norm(compensate(network, graph, kept), 1)
    weight = network.layers[1].conv.weight[0, 1, 0, 0]  # type: ignore[union-attr, index]
    torch.testing.assert_close(mended.running_mean, before - 0.7 * weight)


def test_nothing_is_pushed_through_a_gate() -> None:
    """Squeeze-excite multiplies the constant by what the image says, so nothing constant leaves it."""
    network = random_network(conv(4), SqueezeExcite(filters=4, reduction=2), conv(3), *head())
    graph = ChannelGraph.from_cfg(network.cfg)
    mended = compensate(network, graph, graph.kept_channels({0: np.array([True, False, True, False])}))
    torch.testing.assert_close(batch_norm(mended, 2).running_mean, batch_norm(network, 2).running_mean)


BLOCK: tuple[Layer, ...] = (conv(3), conv(6), Shortcut(from_layer=-3))
"""Adds to a map of six channels."""

EXACT_WITHOUT_BLOCKS: dict[str, tuple[list[Layer], list[int], dict[int, list[int]]]] = {
    "read by a batch norm": ([conv(6), *BLOCK, conv(5)], [0], {}),
    "read by a bias": ([conv(6), *BLOCK], [0], {}),
    "the first of two": ([conv(6), *BLOCK, *BLOCK, conv(5)], [0], {}),
    "the second of two": ([conv(6), *BLOCK, *BLOCK, conv(5)], [1], {}),
    "both": ([conv(6), *BLOCK, *BLOCK, conv(5)], [0, 1], {}),
    "cut channels around it too": ([conv(6), *BLOCK, *BLOCK, conv(5)], [0], {0: [1], 2: [1], 4: [0], 5: [1], 7: [2]}),
    "upsampled": ([conv(6, stride=2), *BLOCK, Upsample(), conv(5)], [0], {}),
    "pooled beyond the border": ([conv(6), *BLOCK, Maxpool(size=3, stride=1), conv(5)], [0], {}),
    "averaged": ([conv(6), *BLOCK, Avgpool(), conv(5)], [0], {}),
    "concatenated": ([conv(6), *BLOCK, conv(4), Route(layers=(-1, 3)), conv(5)], [0], {}),
    "sliced": ([conv(6), *BLOCK, Route(layers=-1, groups=2, group_id=1), conv(5)], [0], {}),
    "read in groups": ([conv(6), *BLOCK, conv(4, groups=2), conv(5)], [0], {}),
    "depthwise": ([conv(6), *BLOCK, depthwise(6), conv(5)], [0], {}),
    "depthwise with a bias": ([conv(6), *BLOCK, depthwise(6, batch_normalize=0), conv(5)], [0], {}),
    "depthwise with some of its channels cut": ([conv(6), *BLOCK, depthwise(6), conv(5)], [0], {0: [2], 2: [2]}),
}


def without_dead_blocks(network: Network, numbers: list[int], dead: dict[int, list[int]]) -> Compact:
    """What comes of `network` without those of its blocks, once γ of all that feeds their shortcuts is 0, and β not."""
    graph = ChannelGraph.from_cfg(network.cfg)
    blocks = [residual_blocks(graph)[number] for number in numbers]
    with torch.no_grad():
        for block in blocks:
            batch_norm(network, block.feeding).weight.zero_()
            batch_norm(network, block.feeding).bias.abs_()
        for layer, channels in dead.items():
            batch_norm(network, layer).weight[channels] = 0
    masks = {
        layer: np.isin(np.arange(len(graph.outputs[layer])), channels, invert=True) for layer, channels in dead.items()
    }
    plan = PrunePlan.from_masks(masks, method="layer", percent=0, threshold=None)
    return carry_out(network, plan.without(blocks, method="layer"))


@pytest.mark.parametrize(("layers", "numbers", "dead"), EXACT_WITHOUT_BLOCKS.values(), ids=EXACT_WITHOUT_BLOCKS.keys())
def test_without_dead_blocks_the_network_says_what_it_said(
    layers: list[Layer], numbers: list[int], dead: dict[int, list[int]]
) -> None:
    network, images = random_network(*layers, *head(), seed=3), random_images()
    result = without_dead_blocks(network, numbers, dead)
    assert len(result.network.layers) == len(network.layers) - 3 * len(numbers)
    (before,), (after,) = outputs(network, images), outputs(result.network, images)
    torch.testing.assert_close(after, before, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "gate",
    [SqueezeExcite(filters=6, reduction=2), Shortcut(from_layer=0, activation="leaky")],
    ids=lambda gate: gate.section,
)
def test_nothing_of_a_block_is_pushed_through_a_gate_or_an_activated_sum(gate: Layer) -> None:
    network = random_network(conv(6), *BLOCK, gate, conv(5), *head())
    result = without_dead_blocks(network, [0], {})
    torch.testing.assert_close(batch_norm(result.full, 5).running_mean, batch_norm(network, 5).running_mean)


def test_the_network_itself_is_left_alone() -> None:
    network = random_network(conv(6), conv(5), *head())
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    without_dead_channels(network, {})
    graph = ChannelGraph.from_cfg(network.cfg)
    compensate(network, graph, graph.kept_channels({0: np.arange(6) > 2}))
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())


def test_keeping_everything_changes_nothing() -> None:
    network = random_network(conv(6), depthwise(6, 3), conv(5, 3), *head())
    graph = ChannelGraph.from_cfg(network.cfg)
    mended = compensate(network, graph, graph.kept_channels({}))
    assert all(torch.equal(tensor, mended.state_dict()[name]) for name, tensor in network.state_dict().items())
