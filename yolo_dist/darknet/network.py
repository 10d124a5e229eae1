"""A cfg as a torch network, and its state before training from scratch."""

import math
from collections.abc import Collection, Iterator, Sequence

import torch
from torch import Tensor, nn

from yolo_dist.darknet.cfg import Cfg, Yolo, sources
from yolo_dist.darknet.channels import in_channels
from yolo_dist.darknet.heads import Head
from yolo_dist.darknet.layers import Convolution, build_layer
from yolo_dist.darknet.shapes import infer_shapes

EXPECTED_OBJECTS = 8
REFERENCE_SIDE = 640
LARGEST_PRIOR = 0.5


class Network(nn.Module):
    """The network of a cfg.

    Attributes:
        cfg: what it was built from.
        layers: one module a layer, at the cfg's index.
        heads: one a yolo layer, in the cfg's order.

    Raises:
        CfgError: the layers do not fit each other.
    """

    def __init__(self, cfg: Cfg) -> None:
        super().__init__()
        shapes = infer_shapes(cfg)
        self.cfg = cfg
        self.layers = nn.ModuleList(
            build_layer(layer, shape.in_channels) for layer, shape in zip(cfg.layers, shapes, strict=True)
        )
        self.heads = [
            Head(
                layer=index,
                stride=shapes[index].stride,
                anchors=torch.tensor(layer.head_anchors, dtype=torch.float32),
                classes=layer.classes,
                scale_x_y=layer.scale_x_y,
            )
            for index, layer in enumerate(cfg.layers)
            if isinstance(layer, Yolo)
        ]
        self._sources = [sources(layer, index) for index, layer in enumerate(cfg.layers)]
        self._finished = finished_outputs(self._sources)

    def forward(self, images: Tensor) -> list[Tensor]:
        """Raw outputs of the heads.

        Args:
            images: RGB in 0..1, float [B, C, H, W]; H and W multiples of the largest stride. A network of one channel
                sees their brightness.

        Returns:
            Logits [B, A, h, w, 5 + classes] for each head, undecoded; see `Head.decode`.
        """
        return self.forward_features(images, ())[0]

    def forward_features(self, images: Tensor, layers: Collection[int]) -> tuple[list[Tensor], dict[int, Tensor]]:
        """Raw outputs of the heads as `forward` gives them, and the outputs of the chosen layers."""
        images = in_channels(images, self.cfg.net.channels)
        heads = {head.layer for head in self.heads}
        raws: list[Tensor] = []
        features: dict[int, Tensor] = {}
        outputs: dict[int, Tensor] = {}
        for index, layer in enumerate(self.layers):
            output = layer(*[outputs[source] for source in self._sources[index]] or [images])
            outputs[index] = output
            if index in heads:
                raws.append(output)
            if index in layers:
                features[index] = output
            for source in self._finished[index]:
                del outputs[source]
        return raws, features


def finished_outputs(reads: Sequence[Sequence[int]]) -> list[list[int]]:
    """For each layer, the outputs that no layer after it reads and that none before it could have dropped."""
    last_reader = list(range(len(reads)))
    for reader, read in enumerate(reads):
        for source in read:
            last_reader[source] = reader
    finished: list[list[int]] = [[] for _ in reads]
    for source, reader in enumerate(last_reader):
        finished[reader].append(source)
    return finished


@torch.no_grad()
def initialize(network: Network, seed: int) -> None:
    """Fill a network for training from scratch; the same seed gives the same numbers.

    Convolutions as He et al. 2015, as torch does by default; γ = 1, β = 0. Heads start at the probabilities that an
    untrained detector should predict (Lin et al. 2017, "Focal Loss", §3.3): few objects an image, no class preferred.
    """
    generator = torch.Generator().manual_seed(seed)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.reset_parameters()
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_uniform_(module.weight, a=math.sqrt(5), generator=generator)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    for bias, prior in _head_biases(network):
        bias.copy_(prior)


def is_new(network: Network) -> bool:
    """Whether no head was ever trained: all have the biases of `initialize`, which the first optimizer step moves.

    What comes before the heads may be trained.
    """
    return all(torch.equal(bias.cpu(), prior) for bias, prior in _head_biases(network))


def _head_biases(network: Network) -> Iterator[tuple[Tensor, Tensor]]:
    """The bias of the convolution that feeds each head, float [A·(5 + classes)], and what it is before training."""
    feeders = network.cfg.head_convolutions
    for head in network.heads:
        feeder = network.layers[feeders[head.layer]]
        assert isinstance(feeder, Convolution)
        if feeder.norm is not None:
            yield feeder.norm.bias, torch.zeros(feeder.norm.num_features)
        elif feeder.conv.bias is not None:
            yield feeder.conv.bias, _priors(head)


def _priors(head: Head) -> Tensor:
    object_prior = min(LARGEST_PRIOR, EXPECTED_OBJECTS * (head.stride / REFERENCE_SIDE) ** 2)
    bias = torch.zeros(len(head.anchors), 5 + head.classes)
    bias[:, 4] = _logit(object_prior)
    bias[:, 5:] = _logit(0.6 / head.classes)
    return bias.flatten()


def _logit(probability: float) -> float:
    return math.log(probability / (1 - probability))
