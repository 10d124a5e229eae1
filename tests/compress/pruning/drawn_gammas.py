"""|γ| for tests: drawn ones for any graph, and tied groups found by neighbours, as one reads them off a cfg."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from yolo_dist.compress.graph import ChannelGraph
from yolo_dist.compress.pruning import METHODS, PruneConfig, PrunePlan
from yolo_dist.darknet.cfg import Cfg, Convolutional, Shortcut, sources

Gammas = dict[int, NDArray[np.float32]]


def random_gammas(graph: ChannelGraph, seed: int = 0) -> Gammas:
    """|γ| of every convolution, around a half."""
    generator = np.random.default_rng(seed)
    return {
        layer: np.abs(generator.normal(0.5, 0.3, len(graph.outputs[layer]))).astype(np.float32)
        for layer in graph.convolutions()
    }


def plan_of(graph: ChannelGraph, gammas: Gammas, method: str, **request: object) -> PrunePlan:
    """What a method plans, asked as in a recipe."""
    return METHODS[method](graph, gammas, PruneConfig.model_validate({"method": method, **request}))


def threshold_of(gammas: Gammas, candidates: list[int], percent: float) -> float:
    """The definition, in one line of plain Python."""
    everything = sorted(value for layer in candidates for value in gammas[layer].tolist())
    return float(everything[int(len(everything) * percent)])


def groups_by_neighbours(cfg: Cfg) -> list[list[int]]:
    """Convolutions that shortcuts tie, each group ascending: every shortcut's inputs, followed back."""
    groups: list[set[int]] = []
    for index, layer in enumerate(cfg.layers):
        if isinstance(layer, Shortcut):
            tied = set(_origins(cfg, index))
            joined = [group for group in groups if group & tied]
            groups = [group for group in groups if not group & tied] + [tied.union(*joined)]
    return sorted(sorted(group) for group in groups)


def _origins(cfg: Cfg, index: int) -> Iterator[int]:
    for source in sources(cfg.layers[index], index):
        if isinstance(cfg.layers[source], Convolutional):
            yield source
        else:
            yield from _origins(cfg, source)
