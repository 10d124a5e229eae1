"""A small network with every layer type and activation, and how to quantise it."""

import functools
from typing import Any

import torch
from small_networks import cfg_of, conv, depthwise, head, random_images, randomize

from yolo_dist.compress.quantization import QuantizationConfig, QuantizedNetwork, calibrate, quantize
from yolo_dist.darknet.cfg import Avgpool, Cfg, Dropout, Maxpool, Route, Shortcut, SqueezeExcite, Upsample
from yolo_dist.darknet.network import Network


def every_layer() -> Cfg:
    """32×32 pixels; two heads; routes, shortcuts and gates between them."""
    return cfg_of(
        conv(8, 3, 2),  # 0
        conv(8, 3, activation="mish"),
        Shortcut(from_layer=(-2,), activation="leaky"),  # 2
        Route(layers=(-1,), groups=2, group_id=1),
        conv(4, activation="relu6"),  # 4
        Route(layers=(-1, 2)),
        conv(12, 3, groups=4, activation="swish"),  # 6
        depthwise(12, 3, activation="h_swish"),
        SqueezeExcite(filters=12),  # 8
        Maxpool(size=2, stride=2),
        conv(12, activation="linear"),  # 10
        Maxpool(size=3, stride=1),
        Shortcut(from_layer=(-2, -3), activation="linear"),  # 12
        Dropout(probability=0.5),
        conv(8, 3, activation="relu"),  # 14
        *head(),
        Route(layers=(14,)),  # 17
        Upsample(stride=2),
        Route(layers=(-1, 2)),  # 19
        conv(8, activation="logistic"),
        Route(layers=(20, 6), groups=4, group_id=2),  # 21
        *head(),
        Route(layers=(14,)),  # 24
        Avgpool(),
        conv(8, batch_normalize=0, activation="leaky"),  # 26
    )


@functools.cache
def quantized(seed: int = 0, **config: Any) -> QuantizedNetwork:
    """That network with random numbers, calibrated, in evaluation mode."""
    torch.manual_seed(seed)
    network = quantize(randomize(Network(every_layer()), seed), QuantizationConfig(**config))
    calibrate(network, [random_images(4, seed=seed)], "minmax")
    return network.eval()
