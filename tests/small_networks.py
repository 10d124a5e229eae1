"""Networks of a few layers, written as Python, and random weights for them."""

from typing import Any

import torch

from yolo_dist.darknet.cfg import Cfg, Convolutional, Depthwise, Layer, Net, Yolo
from yolo_dist.darknet.layers import Convolution
from yolo_dist.darknet.network import Network

ANCHORS = ((8.0, 8.0), (24.0, 20.0))


def conv(filters: int, size: int = 1, stride: int = 1, **options: Any) -> Convolutional:
    """A batch-normalised leaky convolution; `options` say otherwise."""
    usual: dict[str, Any] = {"batch_normalize": 1, "pad": 1, "activation": "leaky"}
    return Convolutional(**{"filters": filters, "size": size, "stride": stride} | usual | options)


def depthwise(filters: int, size: int = 1, **options: Any) -> Depthwise:
    """A batch-normalised leaky depthwise layer under its own name; `options` say otherwise."""
    usual: dict[str, Any] = {"batch_normalize": 1, "pad": 1, "activation": "leaky"}
    return Depthwise(**{"filters": filters, "size": size} | usual | options)


def head(classes: int = 1, **options: Any) -> tuple[Convolutional, Yolo]:
    """A linear convolution with a bias and the yolo layer behind it; two anchors unless a mask says otherwise."""
    yolo = Yolo(anchors=ANCHORS, num=len(ANCHORS), classes=classes, **options)
    return conv(yolo.channels, batch_normalize=0, activation="linear"), yolo


def cfg_of(*layers: Layer, size: tuple[int, int] = (32, 32)) -> Cfg:
    """A cfg of these layers for colour images of (width, height) pixels."""
    return Cfg(Net(width=size[0], height=size[1]), layers)


@torch.no_grad()
def randomize(network: Network, seed: int = 0, sparse: float = 0.0) -> Network:
    """Random numbers everywhere, batch-norm statistics included; a share `sparse` of all γ is negligible."""
    generator = torch.Generator().manual_seed(seed)

    def uniform(like: torch.Tensor, low: float, high: float) -> torch.Tensor:
        return torch.empty_like(like).uniform_(low, high, generator=generator)

    for layer in network.layers:
        if not isinstance(layer, Convolution):
            continue
        layer.conv.weight.mul_(1 + uniform(layer.conv.weight, -0.5, 0.5))
        if layer.conv.bias is not None:
            layer.conv.bias.copy_(uniform(layer.conv.bias, -1, 1))
        if layer.norm is not None:
            assert layer.norm.running_mean is not None
            assert layer.norm.running_var is not None
            alive = torch.rand(layer.norm.weight.shape, generator=generator) >= sparse
            layer.norm.weight.copy_(uniform(layer.norm.weight, -1.5, 1.5) * torch.where(alive, 1.0, 1e-4))
            layer.norm.bias.copy_(uniform(layer.norm.bias, -1, 1))
            layer.norm.running_mean.copy_(uniform(layer.norm.running_mean, -0.5, 0.5))
            layer.norm.running_var.copy_(uniform(layer.norm.running_var, 0.5, 2))
    return network.eval()


def random_network(*layers: Layer, seed: int = 0, sparse: float = 0.0) -> Network:
    """A network of these layers with random numbers."""
    torch.manual_seed(seed)
    return randomize(Network(cfg_of(*layers)), seed, sparse)


def random_images(count: int = 2, size: tuple[int, int] = (32, 32), seed: int = 0) -> torch.Tensor:
    """Noise, float [count, 3, H, W] in 0..1."""
    return torch.rand(count, 3, size[1], size[0], generator=torch.Generator().manual_seed(seed))
