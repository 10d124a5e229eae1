"""The detection loss as pruning may ask for it: on a few training images, of a network that is not being trained."""

from collections.abc import Callable, Iterator
from functools import partial
from itertools import islice

from torch import Tensor

from yolo_dist.darknet.network import Network
from yolo_dist.data.loader import Batch, Loader
from yolo_dist.data.mixture import Images
from yolo_dist.train.loss import DetectionLoss, LossConfig
from yolo_dist.train.targets import assign_all


def calibration_losses(
    shards: Images, image_size: tuple[int, int], count: int
) -> Iterator[Callable[[Network], Tensor]]:
    """One function of a network for each of the first images: the detection loss on it, a scalar.

    Images come as evaluation sees them, those of a mixture by weight, and one by one, so that nothing that is averaged
    over the losses depends on how images are batched. Nothing is read before the first function is asked for.

    Args:
        shards: images and their objects.
        image_size: (width, height) of the network's input in pixels.
        count: number of images; fewer where there are fewer.
    """
    for batch in islice(Loader(shards, image_size, 1, shuffle=False).batches(0), count):
        yield partial(_detection_loss, batch)


def _detection_loss(batch: Batch, network: Network) -> Tensor:
    pixels = batch.images.float().div_(255)
    size = (pixels.shape[3], pixels.shape[2])
    matches = assign_all(network.heads, size, batch.boxes, batch.labels, batch.image_index)
    loss = DetectionLoss(network, LossConfig())
    return loss(network(pixels), matches, len(batch), iou_share=1.0, known=batch.known).total
