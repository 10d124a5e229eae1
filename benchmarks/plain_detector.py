"""A detector as the plain torch module that other pruning tools expect: no chunk of one piece, no views of heads."""

import torch
from torch import Tensor, nn

from yolo_dist.darknet.cfg import Route, Yolo, sources
from yolo_dist.darknet.network import Network


class PlainDetector(nn.Module):
    """The layers of one of our networks, called in turn; gives the maps that its heads would read."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.layers = network.layers
        self.cfg = network.cfg

    def forward(self, images: Tensor) -> list[Tensor]:
        """[B, 3, H, W] → one map for each head."""
        outputs: list[Tensor] = []
        maps: list[Tensor] = []
        for index, (layer, module) in enumerate(zip(self.cfg.layers, self.layers, strict=True)):
            read = [outputs[source] for source in sources(layer, index)] or [images]
            if isinstance(layer, Yolo):
                maps.append(read[0])
                outputs.append(read[0])
            elif isinstance(layer, Route):
                outputs.append(read[0] if len(read) == 1 else torch.cat(read, 1))
            else:
                outputs.append(module(*read))
        return maps
