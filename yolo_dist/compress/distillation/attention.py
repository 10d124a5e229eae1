"""Where a layer looks: the sum of its channels' magnitudes (Zagoruyko & Komodakis 2017, §3.1)."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from yolo_dist.compress.distillation.divergence import softened_divergence
from yolo_dist.compress.distillation.strategy import Comparison, Matched
from yolo_dist.darknet.network import Network


class AttentionMaps:
    """Keeps the attention of some layers whenever a network is run, also inside DDP; whole features are not kept.

    Args:
        network: to listen to; without `stop` it does so for as long as it lives.
        layers: whose outputs are looked at.
    """

    def __init__(self, network: Network, layers: Sequence[int]) -> None:
        self.layers = tuple(layers)
        self._maps: dict[int, Tensor] = {}
        self._hooks = [network.layers[layer].register_forward_hook(self._hook(layer)) for layer in set(layers)]

    def take(self) -> list[Tensor]:
        """Attention of each layer in the last run, float32 [B, h, w]; a second call has nothing to give."""
        maps, self._maps = self._maps, {}
        return [maps[layer] for layer in self.layers]

    def stop(self) -> None:
        """Listen no longer."""
        for hook in self._hooks:
            hook.remove()

    def _hook(self, layer: int) -> Any:
        def keep(_module: nn.Module, _inputs: tuple[Tensor, ...], output: Tensor) -> None:
            self._maps[layer] = output.float().abs().sum(dim=1)

        return keep


def attention_term(batch: Comparison, at_objects: bool) -> Tensor:
    """Divergence of the softened attention of all compared layers, divided by the global batch's images.

    Args:
        batch: what student and teacher gave.
        at_objects: count only cells in which matched objects are; the others are 0 for both.
    """
    total = batch.student.raws[0].new_zeros(())
    for student, teacher in zip(batch.student.attention, batch.teacher.attention, strict=True):
        if at_objects:
            mask = object_cells(batch, student)
            student, teacher = student * mask, teacher * mask
        total = total + softened_divergence(student.flatten(1), teacher.flatten(1), batch.temperature)
    return total / batch.images


def object_cells(batch: Comparison, attention: Tensor) -> Tensor:
    """1 in the cells of a layer's output that lie in a matched object's cell of a head or hold it, float [B, h, w]."""
    mask = torch.zeros_like(attention)
    for raw, match in zip(batch.student.raws, batch.matches, strict=True):
        mask = torch.maximum(mask, _cells_of(raw, match, attention))
    return mask


def _cells_of(raw: Tensor, match: Matched, attention: Tensor) -> Tensor:
    rows, columns = raw.shape[2:4]
    cells = raw.new_zeros(len(attention), rows, columns)
    column, row = match.cell.unbind(1)
    cells[match.image, row, column] = 1
    height, width = attention.shape[1:]
    if height >= rows:
        return cells.repeat_interleave(height // rows, dim=1).repeat_interleave(width // columns, dim=2)
    return nn.functional.max_pool2d(cells[:, None], rows // height)[:, 0]
