"""Importance by lot: the baseline that every other measure has to beat."""

from collections.abc import Sequence

import numpy as np

from yolo_dist.compress.importance.measure import Basis, Importance, measure
from yolo_dist.compress.sparsity import batch_norm
from yolo_dist.darknet.network import Network


@measure("random")
def random(network: Network, layers: Sequence[int], basis: Basis) -> Importance:
    """Uniform in [0, 1): of the seed, the layer's number and its number of channels alone, never of its weights."""
    return {
        layer: np.random.default_rng([basis.seed, layer]).random(batch_norm(network, layer).num_features, np.float32)
        for layer in layers
    }
