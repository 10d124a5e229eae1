"""Importance from the loss: what leaving a channel out would change of it, to first order.

Molchanov et al. 2019, "Importance Estimation for Neural Network Pruning", section 3.
"""

from collections.abc import Sequence
from copy import deepcopy

import numpy as np
import torch

from yolo_dist.compress.importance.measure import Basis, Importance, measure
from yolo_dist.compress.sparsity import batch_norm
from yolo_dist.darknet.network import Network
from yolo_dist.errors import PruneError


@measure("taylor", calibrated=True)
def taylor(network: Network, layers: Sequence[int], basis: Basis) -> Importance:
    """Mean over calibration batches of (γ·∂L/∂γ)².

    γ·∂L/∂γ is the derivative of the loss with respect to a gate in front of γ·x̂: closing it takes from a channel what
    depends on the image and leaves the constant act(β), as pruning with compensation does. Gradients are those of the
    network in evaluation mode, with the batch-norm statistics that it has.

    Raises:
        PruneError: there is no batch, or a gradient is not finite.
    """
    if not layers:
        return {}
    network = deepcopy(network).eval().requires_grad_(False)  # a copy: neither statistics nor gradients can leak
    gammas = [batch_norm(network, layer).weight.requires_grad_() for layer in layers]
    totals = [torch.zeros_like(gamma, dtype=torch.float64) for gamma in gammas]
    batches = 0
    for loss in basis.losses:
        with torch.enable_grad():
            gradients = torch.autograd.grad(loss(network), gammas, allow_unused=True, materialize_grads=True)
        for total, gamma, gradient in zip(totals, gammas, gradients, strict=True):
            total += (gamma.detach() * gradient).double().square()
        batches += 1
    if not batches:
        raise PruneError("importance taylor needs calibration images; give some or choose another importance")
    for layer, total in zip(layers, totals, strict=True):
        if not torch.isfinite(total).all():
            place = network.cfg.place(layer)
            raise PruneError(f"{place}: gradients on the calibration images are not finite; train the network again")
    return {
        layer: (total / batches).cpu().numpy().astype(np.float32) for layer, total in zip(layers, totals, strict=True)
    }
