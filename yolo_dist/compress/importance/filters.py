"""Importance from the filters: their norms (Li et al. 2017, "Pruning Filters for Efficient ConvNets").

Li et al. rank filters within a layer. Most methods here choose from all layers at once, and there bare norms would rank
layers, not filters: an L1 norm grows with the number of weights, and behind batch normalisation a layer computes the
same whatever all its filters are multiplied by. So each norm is divided by the mean of its layer, which leaves the
ranking within it, and of whole layers none.
"""

from collections.abc import Sequence

import torch

from yolo_dist.compress.importance.measure import Basis, Importance, measure
from yolo_dist.darknet.layers import Convolution
from yolo_dist.darknet.network import Network


@measure("l1", relative=True)
def l1(network: Network, layers: Sequence[int], _basis: Basis) -> Importance:
    """Σ|w| over each filter, over the mean of that in its layer."""
    return _relative_norms(network, layers, order=1)


@measure("l2", relative=True)
def l2(network: Network, layers: Sequence[int], _basis: Basis) -> Importance:
    """√Σw² over each filter, over the mean of that in its layer."""
    return _relative_norms(network, layers, order=2)


@torch.no_grad()
def _relative_norms(network: Network, layers: Sequence[int], order: int) -> Importance:
    importance: dict[int, torch.Tensor] = {}
    for layer in layers:
        convolution = network.layers[layer]
        assert isinstance(convolution, Convolution)
        norms = torch.linalg.vector_norm(convolution.conv.weight.double().flatten(1), ord=order, dim=1)
        importance[layer] = norms / norms.mean().clamp(min=torch.finfo(norms.dtype).tiny)  # 0 where all are 0
    return {layer: values.float().cpu().numpy() for layer, values in importance.items()}
