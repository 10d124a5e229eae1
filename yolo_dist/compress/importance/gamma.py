"""Importance from batch normalisation alone: its scale γ, or what its scale, shift and activation let through."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from yolo_dist.compress.importance.measure import Basis, Importance, measure
from yolo_dist.compress.sparsity import absolute_gammas, batch_norm
from yolo_dist.darknet.layers import Convolution
from yolo_dist.darknet.network import Network

NODES = torch.linspace(-8, 8, 513, dtype=torch.float64)
"""x̂ at which an activation is looked at, float64 [513]."""
WEIGHTS = torch.softmax(-NODES.square() / 2, dim=0)
"""What each of them weighs under the standard normal distribution; they sum to 1."""


@measure("gamma")
def gamma(network: Network, layers: Sequence[int], _basis: Basis) -> Importance:
    """|γ| (Liu et al. 2017, "Network Slimming")."""
    return absolute_gammas(network, layers)


@measure("gamma-beta")
def gamma_beta(network: Network, layers: Sequence[int], _basis: Basis) -> Importance:
    """Standard deviation of act(γ·x̂ + β) for x̂ ~ N(0, 1): how much of what a channel emits depends on the image.

    A normalised response x̂ has mean 0 and variance 1 (Ioffe & Szegedy 2015) and is taken as Gaussian. What the channel
    emits is its mean, which compensation hands to its readers when it goes, and the rest, which is lost; the rest has
    this standard deviation. It is |γ| behind a linear activation; behind a leaky one it falls towards a tenth of that
    as β becomes more negative, because the channel is hardly ever awake.

    The integrals over x̂ are sums at equal distances of 1/32. Unlike Gauss-Hermite quadrature that converges fast for
    activations with a kink too: where the slope jumps by s the mean is off by at most s·|γ|·φ(0)/(8·32²) < 5e-5·s·|γ|.
    """
    return {layer: _spread(network, layer) for layer in layers}


@torch.no_grad()
def _spread(network: Network, layer: int) -> NDArray[np.float32]:
    norm, convolution = batch_norm(network, layer), network.layers[layer]
    assert isinstance(convolution, Convolution)
    scale, shift = norm.weight.double().cpu(), norm.bias.double().cpu()
    emitted = convolution.activation(torch.outer(scale, NODES) + shift[:, None])
    emitted -= emitted[:, len(NODES) // 2, None].clone()  # less act(β), so that no rounding is left where γ is 0
    varying = emitted - (emitted @ WEIGHTS)[:, None]
    return (varying.square() @ WEIGHTS).sqrt().float().numpy()  # type: ignore[no-any-return]
