"""Batch-norm re-estimation: statistics measured anew on a few batches, nothing trained.

Li et al. 2020, "EagleEye: Fast Sub-net Evaluation for Efficient Neural Network Pruning", section 4.
"""

from collections.abc import Iterable

import torch
from torch import Tensor
from torch.nn import BatchNorm2d

from yolo_dist.darknet.network import Network


@torch.no_grad()
def reestimate_batchnorm(network: Network, batches: Iterable[Tensor]) -> None:
    """Replace running means and variances by plain averages over `batches` of images (float [B, C, H, W], 0..1)."""
    norms = [module for module in network.modules() if isinstance(module, BatchNorm2d)]
    momenta = [norm.momentum for norm in norms]
    training = network.training
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None
    network.train()
    for images in batches:
        network(images)
    network.train(training)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
