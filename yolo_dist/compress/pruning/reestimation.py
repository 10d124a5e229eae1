"""Batch-norm re-estimation: statistics measured anew on a few batches, nothing trained.

Li et al. 2020, "EagleEye: Fast Sub-net Evaluation for Efficient Neural Network Pruning", section 4.
"""

from collections.abc import Collection, Iterable
from copy import deepcopy

import torch
from torch import Tensor
from torch.nn import BatchNorm2d

from yolo_dist.compress.pruning.carry_out import Compact
from yolo_dist.darknet.layers import Convolution
from yolo_dist.darknet.network import Network
from yolo_dist.errors import PruneError

NO_VARIANCE = "more than 1 value per channel"
"""What torch says of a batch norm in training that sees a single number a channel."""


def batch_norms(network: Network, frozen: Collection[int] = ()) -> list[BatchNorm2d]:
    """The batch norms of all layers but the `frozen` ones, in the cfg's order."""
    layers = (layer for index, layer in enumerate(network.layers) if index not in frozen)
    return [module for layer in layers for module in layer.modules() if isinstance(module, BatchNorm2d)]


@torch.no_grad()
def reestimate_batchnorm(network: Network, batches: Iterable[Tensor], frozen: Collection[int] = ()) -> None:
    """Replace running means and variances by plain averages over `batches` of images (float [B, C, H, W], 0..1).

    Those of `frozen` layers stay.

    Raises:
        PruneError: there is no batch, or one of a single image whose maps are single pixels, which have no variance.
    """
    batches = list(batches)
    if not batches:
        raise PruneError("re-estimation of batch norms needs training images; give some or set reestimate_images to 0")
    norms = batch_norms(network, frozen)
    momenta = [norm.momentum for norm in norms]
    training = network.training
    network.eval()  # dropout would add a variance that inference does not have
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None
        norm.train()
    for images in batches:
        try:
            network(images)
        except ValueError as error:
            if NO_VARIANCE not in str(error):
                raise
            raise PruneError(
                "re-estimation of batch norms: a batch of one image has maps of one pixel, and so no variance; take "
                "one image more or less, or a larger image_size"
            ) from None
    network.train(training)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum


@torch.no_grad()
def with_same_statistics(result: Compact) -> Network:
    """The full-size network with the statistics that the compact one has by now.

    It shares all weights with `result.full`, which stays as it is; channels that were cut keep their statistics.
    """
    full = deepcopy(result.full, {id(weight): weight for weight in result.full.parameters()})
    for layer, origin in zip(result.network.layers, result.lineage, strict=True):
        if origin is None or not isinstance(layer, Convolution) or layer.norm is None:
            continue
        staying = torch.from_numpy(result.kept[result.graph.outputs[origin]])
        for name in ("running_mean", "running_var"):
            full.get_buffer(f"layers.{origin}.norm.{name}")[staying] = layer.norm.get_buffer(name)
    return full
