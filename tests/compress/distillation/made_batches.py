"""A small network, another one as its teacher, and a batch that both have seen."""

import torch
from small_networks import cfg_of, conv

from yolo_dist.compress.distillation import Comparison, Outputs
from yolo_dist.compress.distillation.attention import AttentionMaps
from yolo_dist.darknet.cfg import Route, Yolo
from yolo_dist.darknet.network import Network, initialize
from yolo_dist.train.targets import assign_all

SIZE = (64, 32)
ANCHORS = ((10.0, 12.0), (24.0, 20.0))
COMPARED = (0, 2, 3)
"""Layers at strides 2, 8 and 16, beside heads at strides 16 and 8."""


def two_heads(seed: int, classes: int = 2, scale_x_y: float = 1.0, width: int = 6) -> Network:
    """Heads at strides 16 and 8."""
    head = Yolo(anchors=ANCHORS, num=2, classes=classes, scale_x_y=scale_x_y)
    feeder = conv(head.channels, batch_normalize=0, activation="linear")
    backbone = [conv(width, 3, 2) for _ in range(4)]
    network = Network(cfg_of(*backbone, feeder, head, Route(layers=(-4,)), feeder, head, size=SIZE))
    initialize(network, seed)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(seed)) * 0.3)
    return network.eval()


def comparison(classes: int = 2, scale_x_y: float = 1.0, temperature: float = 3.0, images: int = 2) -> Comparison:
    """Two images with three objects, one of them at the image's corner."""
    pixels = torch.rand(2, 3, SIZE[1], SIZE[0], generator=torch.Generator().manual_seed(7))
    student, teacher = (two_heads(seed, classes, scale_x_y, width) for seed, width in ((1, 6), (2, 9)))
    boxes = torch.tensor([[3.0, 4.0, 14.0, 15.0], [30.0, 8.0, 52.0, 29.0], [52.0, 20.0, 64.0, 32.0]])
    matches = assign_all(student.heads, SIZE, boxes, torch.tensor([0, 1, 1]) % classes, torch.tensor([0, 0, 1]))
    assert all(len(match) for match in matches)
    outputs = []
    for network in (student, teacher):
        maps = AttentionMaps(network, COMPARED)
        raws = network(pixels)
        outputs.append(Outputs(network.heads, raws, maps.take()))
    return Comparison(outputs[0], outputs[1], matches, images, temperature)
