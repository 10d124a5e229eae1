"""Darknet weights files: a header, then every layer's float32 numbers in the cfg's order."""

import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from yolo_dist.darknet.cfg import format_cfg, parse_cfg
from yolo_dist.darknet.layers import Convolution, SqueezeExcitation
from yolo_dist.darknet.network import Network
from yolo_dist.errors import ModelError, WeightsMismatch
from yolo_dist.storage import location, publish

VERSION = (0, 2, 5)
LARGEST_VERSION = 1000
"""Beyond it, files of 2014 said that they were transposed."""


@dataclass(frozen=True)
class Weights:
    """A weights file as it is.

    Attributes:
        major, minor, revision: of the Darknet that wrote it.
        seen: images it was trained on.
        floats: the body, float32 [n].
    """

    major: int
    minor: int
    revision: int
    seen: int
    floats: NDArray[np.float32]


@dataclass(frozen=True)
class LoadReport:
    """What loading did: images the weights were trained on, and the head convolutions left as they were."""

    seen: int
    skipped_heads: tuple[int, ...] = ()


def read_weights(path: str | os.PathLike[str]) -> Weights:
    """The header and numbers of a file or URL.

    Raises:
        ModelError: it cannot be read.
        WeightsMismatch: the header is incomplete or not Darknet's, or the body is no whole number of float32s.
    """
    try:
        data = location(path).read_bytes()
    except OSError as error:
        raise ModelError(f"{path}: cannot be read ({error.strerror or error}); give a Darknet weights file") from None
    return _parse(data, str(path))


def _parse(data: bytes, source: str) -> Weights:
    incomplete = f"{source}: {len(data)} bytes do not hold Darknet's header; the file is truncated or of another kind"
    if len(data) < 12:
        raise WeightsMismatch(incomplete)
    major, minor, revision = struct.unpack_from("<3i", data)
    if not (0 <= major <= LARGEST_VERSION and 0 <= minor <= LARGEST_VERSION):
        raise WeightsMismatch(f"{source}: header says version {major}.{minor}; this is no Darknet weights file")
    seen_format = "<q" if major * 10 + minor >= 2 else "<i"
    body = 12 + struct.calcsize(seen_format)
    if len(data) < body:
        raise WeightsMismatch(incomplete)
    if (len(data) - body) % 4:
        raise WeightsMismatch(
            f"{source}: {len(data) - body} bytes after the header are no whole float32s; copy the file again"
        )
    (seen,) = struct.unpack_from(seen_format, data, 12)
    return Weights(major, minor, revision, seen, np.frombuffer(data, "<f4", offset=body))


def stored_tensors(layer: nn.Module) -> list[Tensor]:
    """A layer's tensors in the order of the file; none for layers without numbers."""
    match layer:
        case Convolution(conv=conv, norm=nn.BatchNorm2d() as norm):
            assert norm.running_mean is not None
            assert norm.running_var is not None
            return [norm.bias, norm.weight, norm.running_mean, norm.running_var, conv.weight]
        case Convolution(conv=conv):
            assert conv.bias is not None
            return [conv.bias, conv.weight]
        case SqueezeExcitation(fc1=fc1, fc2=fc2):
            return [fc1.weight, fc2.weight]
        case _:
            return []


def load_weights(
    network: Network, path: str | os.PathLike[str], *, layers: int | None = None, skip_heads: bool = False
) -> LoadReport:
    """Fill a network from a file or URL; the network is untouched if the file does not fit.

    Args:
        network: what to fill.
        path: the weights file.
        layers: fill only the first so many layers: the file is a backbone that ends there (`*.conv.N`).
        skip_heads: leave the convolutions that feed yolo layers as they are: the file is for other classes.

    Raises:
        ModelError: the file cannot be read.
        WeightsMismatch: it holds too few or too many numbers; names both counts and the layer reached.
    """
    return _load(network, read_weights(path), str(path), layers, skip_heads)


def read_back(network: Network) -> Network:
    """The network, in the same mode, that the cfg text and the weights file of `network` give to whoever loads them.

    Raises:
        CfgError, WeightsMismatch: text or numbers do not describe a network.
    """
    copy = Network(parse_cfg(format_cfg(network.cfg)))
    _load(copy, _parse(weights_bytes(network), "the weights just made"), "the weights just made")
    return copy.train(network.training)


def _load(
    network: Network, weights: Weights, source: str, layers: int | None = None, skip_heads: bool = False
) -> LoadReport:
    count = len(network.layers) if layers is None else layers
    if not 0 < count <= len(network.layers):
        raise WeightsMismatch(f"{source}: layers={layers} asked for; the cfg has {len(network.layers)}")
    heads = {head for head in network.cfg.head_convolutions.values() if head < count} if skip_heads else set()
    classes = _classes_in_file(network, len(weights.floats)) if heads and count == len(network.layers) else None
    sizes = _file_sizes(network, classes)[:count]
    if len(weights.floats) != sum(sizes):
        raise WeightsMismatch(f"{source}: {_mismatch(network, sizes, len(weights.floats))}")
    _fill(network, sizes, weights.floats, heads)
    return LoadReport(weights.seen, tuple(sorted(heads)))


def load_fitting(network: Network, path: str | os.PathLike[str]) -> list[int]:
    """Fill as many layers as a file has numbers for: all, the first ones (`*.conv.N`), or all but other classes' heads.

    Returns:
        The layers with numbers that were filled, ascending.

    Raises:
        ModelError: the file cannot be read.
        WeightsMismatch: its numbers end within a layer, and it is no detector of other classes; names both counts.
    """
    ends = list(accumulate(_file_sizes(network)))
    found = len(read_weights(path).floats)
    if found in ends:
        count, heads = len(ends) - ends[::-1].index(found), set[int]()
        load_weights(network, path, layers=count)
    else:
        count, heads = len(ends), set(load_weights(network, path, skip_heads=True).skipped_heads)
    stored = (index for index, layer in enumerate(network.layers[:count]) if stored_tensors(layer))
    return [index for index in stored if index not in heads]


def weights_bytes(network: Network, seen: int = 0) -> bytes:
    """The weights file of a network, after training on `seen` images."""
    tensors = [tensor for layer in network.layers for tensor in stored_tensors(layer)]
    body = (tensor.detach().float().cpu().numpy().astype("<f4").tobytes() for tensor in tensors)
    return struct.pack("<3iq", *VERSION, seen) + b"".join(body)


def save_weights(network: Network, path: str | os.PathLike[str], seen: int = 0) -> None:
    """Write a network's weights to a file or URL, completely or not at all."""
    publish(location(path), weights_bytes(network, seen))


@torch.no_grad()
def _fill(network: Network, sizes: list[int], floats: NDArray[np.float32], skipped: set[int]) -> None:
    starts = accumulate(sizes, initial=0)
    for index, (layer, start) in enumerate(zip(network.layers, starts, strict=False)):
        if index == len(sizes):
            return
        for tensor in stored_tensors(layer) if index not in skipped else ():
            values = floats[start : start + tensor.numel()].astype(np.float32).reshape(tensor.shape)
            tensor.copy_(torch.from_numpy(values))
            start += tensor.numel()


def _file_sizes(network: Network, classes: int | None = None) -> list[int]:
    """Numbers each layer has in a file; for heads of `classes` classes if given."""
    sizes = [sum(tensor.numel() for tensor in stored_tensors(layer)) for layer in network.layers]
    if classes is None:
        return sizes
    for head in network.heads:
        feeder = network.cfg.head_convolutions[head.layer]
        sizes[feeder] = sizes[feeder] // (5 + head.classes) * (5 + classes)
    return sizes


def _classes_in_file(network: Network, floats: int) -> int | None:
    """The class count with which the network would have so many floats, if there is one."""
    least, with_one_more = sum(_file_sizes(network, 0)), sum(_file_sizes(network, 1))
    classes, rest = divmod(floats - least, (with_one_more - least) or 1)
    return classes if classes > 0 and not rest else None


def _mismatch(network: Network, sizes: list[int], found: int) -> str:
    counts = f"holds {found} float32s, the cfg needs {sum(sizes)}"
    ends = list(accumulate(sizes))
    if found < ends[-1]:
        reached = next(index for index, end in enumerate(ends) if found < end)
        place = f"it ends in layer {reached} [{network.cfg.layers[reached].section}]"
    else:
        place = f"{found - ends[-1]} are left after the last layer, {len(sizes) - 1}"
    return f"{counts}: {place}; {' or '.join(_ways_to_load(network, found))}"


def _ways_to_load(network: Network, found: int) -> Iterator[str]:
    yield "take the cfg that belongs to it"
    ends = list(accumulate(_file_sizes(network)))
    if found in ends[:-1]:
        yield f"load it as a backbone of {len(ends) - ends[::-1].index(found)} layers"
    if network.heads and (classes := _classes_in_file(network, found)):
        yield f"skip the heads, which it has for {classes} classes"
