"""Batch-norm re-estimation: statistics measured anew on a few batches, nothing trained.

Li et al. 2020, "EagleEye: Fast Sub-net Evaluation for Efficient Neural Network Pruning", section 4.
"""

from collections.abc import Iterable

import torch
from torch import Tensor
from torch.nn import BatchNorm2d

from yolo_dist.darknet.network import Network
from yolo_dist.errors import PruneError


@torch.no_grad()
def reestimate_batchnorm(network: Network, batches: Iterable[Tensor]) -> None:
    """Replace running means and variances by plain averages over `batches` of images (float [B, C, H, W], 0..1).

    Raises:
        PruneError: there is no batch.
    """
    batches = list(batches)
    if not batches:
        raise PruneError("re-estimation of batch norms needs training images; give some or set reestimate_images to 0")
    norms = [module for module in network.modules() if isinstance(module, BatchNorm2d)]
    momenta = [norm.momentum for norm in norms]
    training = network.training
    network.eval()  # dropout would add a variance that inference does not have
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None
        norm.train()
    for images in batches:
        network(images)
    network.train(training)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
