"""Layers that a stage leaves as they are: no gradient reaches them, and their batch norms keep their statistics.

The gradient is not even computed for the first layers of a network if all up to there are frozen: such a stage needs
less time and memory.
"""

from collections.abc import Iterable
from typing import Annotated, Literal

from annotated_types import Ge

from yolo_dist.darknet.backbone import backbone, unused_layers
from yolo_dist.darknet.cfg import Cfg
from yolo_dist.darknet.network import Network
from yolo_dist.errors import ConfigError

Layer = Annotated[int, Ge(0)]
Freeze = Literal["backbone"] | Annotated[int, Ge(1)] | tuple[tuple[Layer, Layer], ...]
"""`backbone`; a number: the first so many layers of the cfg; or pairs: each from its first layer to its last."""


class FrozenLayers:
    """Holds some layers of a network in training still.

    Args:
        network: its frozen parameters, and those on which no head depends, want no gradient from here on: do this
            before anything is built on them.
        freeze: which layers; None for none.

    Attributes:
        layers: their indices in the cfg, ascending.

    Raises:
        ConfigError: the cfg has no such layer, or none would be left to train.
    """

    def __init__(self, network: Network, freeze: Freeze | None) -> None:
        self.network = network
        self.layers = [] if freeze is None else frozen_layers(network.cfg, freeze)
        for layer in (*self.layers, *unused_layers(network.cfg)):  # several workers wait for all gradients wanted
            network.layers[layer].requires_grad_(False)
        if self.layers and not any(parameter.requires_grad for parameter in network.parameters()):
            raise ConfigError("freeze", ["leaves no layer to train; freeze fewer"])

    def hold(self) -> None:
        """Keep batch norms and dropout as in evaluation; call it whenever the network's own mode was set."""
        for layer in self.layers:
            self.network.layers[layer].eval()

    @property
    def described(self) -> str:
        """The layers as ranges: 0-74, 80."""
        return ranges(self.layers)


def frozen_layers(cfg: Cfg, freeze: Freeze) -> list[int]:
    """Indices of the layers that are meant, ascending.

    Raises:
        ConfigError: the cfg has no such layer; names it.
    """
    if freeze == "backbone":
        return backbone(cfg)
    pairs = [(0, freeze - 1)] if isinstance(freeze, int) else freeze
    last = len(cfg.layers) - 1
    if wrong := [f"{first}-{end}" for first, end in pairs if first > end or end > last]:
        raise ConfigError("freeze", [f"layers {', '.join(wrong)} are not there; the cfg has layers 0-{last}"])
    return sorted({layer for first, end in pairs for layer in range(first, end + 1)})


def ranges(layers: Iterable[int]) -> str:
    """Ascending numbers in a few words: 0-74, 80."""
    runs: list[list[int]] = []
    for layer in layers:
        if runs and runs[-1][1] == layer - 1:
            runs[-1][1] = layer
        else:
            runs.append([layer, layer])
    return ", ".join(str(first) if first == last else f"{first}-{last}" for first, last in runs)
