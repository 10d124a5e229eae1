"""Batch-norm statistics: those of all workers together, and those of the averaged network, measured anew.

Running statistics follow the trained weights with a delay, and the averaged weights are not where the trained ones are.
Where batch normalisation scales small differences up, as after sparse training, that decides between a good and a
useless network (Wu & Johnson 2021, "Rethinking 'Batch' in BatchNorm", §3). They are measured on images augmented as in
training: weights fit what they were trained with, and plain images, though nearer to those of the evaluation, gave
worse boxes.
"""

from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager

from torch import Tensor

from yolo_dist.compress.pruning.reestimation import batch_norms, reestimate_batchnorm
from yolo_dist.darknet.network import Network
from yolo_dist.data.loader import FEW
from yolo_dist.errors import OutOfMemory
from yolo_dist.shortage import is_lack_of_memory
from yolo_dist.train.workers import Workers


def statistics_of(network: Network, frozen: Collection[int] = ()) -> list[Tensor]:
    """Running means and variances, the very tensors, float [C] each; not those of `frozen` layers."""
    return [buffer for norm in batch_norms(network, frozen) for buffer in norm.buffers() if buffer.is_floating_point()]


@contextmanager
def averaged_statistics(networks: Iterable[Network], workers: Workers, frozen: Collection[int] = ()) -> Iterator[None]:
    """Networks with the mean of all workers' statistics, which each has of its own again afterwards; `frozen` layers
    keep those they have."""
    statistics = [tensor for network in networks for tensor in statistics_of(network, frozen)]
    with _put_back(statistics):
        workers.average_(statistics)
        yield


@contextmanager
def _put_back(tensors: list[Tensor]) -> Iterator[None]:
    before = [tensor.clone() for tensor in tensors]
    try:
        yield
    finally:
        for tensor, earlier in zip(tensors, before, strict=True):
            tensor.copy_(earlier)


@contextmanager
def settled_statistics(
    network: Network, batches: Iterable[Tensor], workers: Workers, kept: bool = False, frozen: Collection[int] = ()
) -> Iterator[None]:
    """Measure a network's statistics on images, the same for all workers.

    Args:
        network: on the workers' device; its weights stay.
        batches: of images, float [B, C, H, W] in 0..1, the same on all workers.
        workers: have the same statistics, whatever their processors are.
        kept: whether they stay; by default training goes on afterwards as if nothing had been measured.
        frozen: layers that keep the statistics they have.

    Raises:
        OutOfMemory: a batch does not fit into memory; it is not taken in parts, for its statistics are not theirs.
    """
    statistics = statistics_of(network, frozen)
    with _put_back([] if kept else statistics):
        try:
            reestimate_batchnorm(network, (images.to(workers.device) for images in batches), frozen)
        except (RuntimeError, MemoryError) as error:
            if not is_lack_of_memory(error):
                raise
            raise OutOfMemory(
                f"worker {workers.rank} ran out of memory measuring batch-norm statistics; run fewer workers on a "
                f"machine, or set statistics_images below {FEW}, which is how many are looked at together"
            ) from error
        workers.average_(statistics)
        yield
