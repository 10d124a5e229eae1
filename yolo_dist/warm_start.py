"""First weights from a model that fits only partly: a backbone's weights file, or a detector of other classes."""

from dataclasses import dataclass

import torch

from yolo_dist.bundle import RECORD_FILE, Bundle, open_bundle
from yolo_dist.darknet.network import Network
from yolo_dist.darknet.weights import load_fitting, stored_tensors
from yolo_dist.errors import ModelError
from yolo_dist.storage import Url, location
from yolo_dist.train.freezing import ranges


@dataclass(frozen=True)
class WarmStart:
    """Which layers with weights of their own were taken from elsewhere, and which are as they were; ascending."""

    taken: tuple[int, ...]
    new: tuple[int, ...]

    def __str__(self) -> str:
        all_of_them = f"{len(self.taken)} of {len(self.taken) + len(self.new)} layers with weights taken"
        return f"{all_of_them}, new are {ranges(self.new)}" if self.new else all_of_them


def warm_start(bundle: Bundle, source: Url) -> WarmStart:
    """Fill an initialised network with what fits of another model.

    Of a bundle those layers are taken that have weights of the same shape under the same number, and those that feed
    heads only if the classes are the same. Of a weights file, which has no shapes, all layers are taken; or the first
    ones, if it ends with the last of these; or all but those that feed heads, if it is of another number of classes.

    Args:
        bundle: its network is changed.
        source: path or URL of a bundle, or of a Darknet weights file such as `darknet53.conv.74`.

    Raises:
        ModelError: nothing fits; names what was found.
    """
    network = bundle.network
    taken = _take_layers(bundle, open_bundle(source)) if is_bundle(source) else load_fitting(network, str(source))
    stored = [index for index, layer in enumerate(network.layers) if stored_tensors(layer)]
    if not taken:
        raise ModelError(f"{source}: has no layer with weights of the shape that this network's have; leave it out")
    return WarmStart(tuple(taken), tuple(index for index in stored if index not in taken))


def is_bundle(source: Url) -> bool:
    """Whether there is a bundle, and not a file."""
    return (location(source) / RECORD_FILE).exists()


@torch.no_grad()
def _take_layers(bundle: Bundle, other: Bundle) -> list[int]:
    mine: Network = bundle.network
    apart = set() if bundle.classes == other.classes else set(mine.cfg.head_convolutions.values())
    taken = []
    for index, layers in enumerate(zip(mine.layers, other.network.layers, strict=False)):
        to, of = (stored_tensors(layer) for layer in layers)
        if not to or index in apart or [one.shape for one in to] != [one.shape for one in of]:
            continue
        for tensor, values in zip(to, of, strict=True):
            tensor.copy_(values)
        taken.append(index)
    return taken
