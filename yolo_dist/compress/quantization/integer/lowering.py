"""From a quantised network, which computes in floating point, to its integers: one pass over the cfg."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

from yolo_dist.compress.quantization.activations import ActivationQuantizer
from yolo_dist.compress.quantization.integer.endings import Ending, onto
from yolo_dist.compress.quantization.integer.filters import integer_filters
from yolo_dist.compress.quantization.integer.network import AnyOperation, IntegerHead, IntegerNetwork
from yolo_dist.compress.quantization.integer.operations import (
    IMAGE,
    IntegerAverage,
    IntegerConcatenation,
    IntegerConvolution,
    IntegerLookup,
    IntegerMaximum,
    IntegerProduct,
    IntegerSlice,
    IntegerSum,
    IntegerUpsampling,
)
from yolo_dist.compress.quantization.integer.rescaling import IntegerGrid, Rescaling, common_shift
from yolo_dist.compress.quantization.layers import (
    DeployedConvolution,
    QuantizedAddition,
    QuantizedAveragePooling,
    QuantizedConcatenation,
    QuantizedConvolution,
    QuantizedSqueezeExcitation,
)
from yolo_dist.compress.quantization.network import READS_A_HEADS_MAP, QuantizedNetwork
from yolo_dist.darknet.cfg import sources
from yolo_dist.darknet.layers import Concatenation, HeadOutput, MaxPooling
from yolo_dist.darknet.shapes import infer_shapes
from yolo_dist.errors import NotExportable

MOST_CELLS = 1 << 20
"""No map whose average is taken has more."""


@torch.no_grad()
def integer_network(network: QuantizedNetwork) -> IntegerNetwork:
    """The integers that a calibrated network stands for.

    Raises:
        NotExportable: a layer keeps float weights, or reads or gives numbers that lie on no grid; names it.
        NotCalibrated: there are no ranges.
    """
    cfg = network.cfg
    image = IntegerGrid.of(network.image.grid())
    operations: list[AnyOperation] = []
    heads: list[IntegerHead] = []
    results: dict[int, int] = {}
    for index, (module, shape) in enumerate(zip(network.layers, infer_shapes(cfg), strict=True)):
        reads = tuple(results[source] for source in sources(cfg.layers[index], index)) or (IMAGE,)
        if isinstance(module, HeadOutput):
            heads.append(IntegerHead(reads[0], module.rows[0]))
            continue
        grids = tuple(image if source == IMAGE else operations[source].grid for source in reads)
        if problem := _problem(module, grids):
            raise NotExportable(f"{cfg.place(index)}: {problem}")
        size = (shape.out_channels, shape.height, shape.width)
        place = _Place(f"layers.{index}", f"layers.{index}", reads, tuple(filter(None, grids)), size)
        operations.extend(_operations(place, module, len(operations)))
        results[index] = len(operations) - 1
    width, height = cfg.size
    return IntegerNetwork(image, (cfg.net.channels, height, width), tuple(operations), tuple(heads))


@dataclass(frozen=True)
class _Place:
    """Where an operation stands.

    Attributes:
        layer, name: of the layer's and of the operation's module.
        sources, grids: the operations that it reads, and where their numbers lie.
        shape: of its output.
    """

    layer: str
    name: str
    sources: tuple[int, ...]
    grids: tuple[IntegerGrid, ...]
    shape: tuple[int, int, int]

    def part(self, name: str, source: int, grid: IntegerGrid, channels: int) -> "_Place":
        """That of an operation within the layer which gives one number a channel."""
        return _Place(self.layer, f"{self.layer}.{name}", (source,), (grid,), (channels, 1, 1))


def _problem(module: nn.Module, grids: tuple[IntegerGrid | None, ...]) -> str | None:
    if None in grids:
        return READS_A_HEADS_MAP
    if isinstance(module, QuantizedConvolution):
        if module.weight_bits is None:
            return "keeps float weights; give first_bits and last_bits numbers"
        if module.output is None and not isinstance(module.activation, nn.Identity):
            return "feeds a head through an activation; make it linear"
    return None


def _operations(place: _Place, module: nn.Module, number: int) -> Iterator[AnyOperation]:
    """Those of a layer; the first of them stands at `number`."""
    unchanged = (place.name, place.sources, place.shape, place.grids[0])
    match module:
        case QuantizedConvolution(output=None):
            yield _convolution(place, module.deployed(), module.conv, None)
        case QuantizedConvolution(output=ActivationQuantizer() as output):
            ending = Ending(output, module.activation, module.before)
            yield _convolution(place, module.deployed(), module.conv, ending)
            yield from _lookup(place, ending, number)
        case QuantizedSqueezeExcitation():
            yield from _squeeze_excitation(place, module, number)
        case QuantizedAddition():
            ending = Ending(module.output, module.activation, module.before)
            yield _sum(place, ending)
            yield from _lookup(place, ending, number)
        case QuantizedAveragePooling():
            yield _average(place, module.output)
        case QuantizedConcatenation():
            yield _concatenation(place, module)
        case MaxPooling():
            yield IntegerMaximum(*unchanged, module.window, module.stride, module.before, module.before + module.odd)
        case nn.Upsample(scale_factor=int() | float() as factor):
            yield IntegerUpsampling(*unchanged, int(factor))
        case Concatenation():
            yield IntegerSlice(*unchanged, module.groups, module.group_id)
        case nn.Dropout():
            yield IntegerSlice(*unchanged, groups=1, group_id=0)
        case _:
            raise TypeError(f"{place.name}: no integers for {type(module).__name__}")


def _convolution(
    place: _Place, deployed: DeployedConvolution, conv: nn.Conv2d, ending: Ending | None
) -> IntegerConvolution:
    """Up to the table if there is one, up to the accumulators if a head reads them and there is no ending."""
    (source,), grid = place.grids, None if ending is None else ending.grid
    filters = integer_filters(deployed, source, grid)
    return IntegerConvolution(
        *(_rescaled(place, ending), place.sources, place.shape, grid),
        weight=filters.weight,
        weight_zero_point=filters.zero_point,
        bias=filters.bias,
        alignment=filters.alignment,
        source_zero_point=source.zero_point,
        stride=conv.stride[0],
        padding=int(conv.padding[0]),
        dilation=conv.dilation[0],
        groups=conv.groups,
        rescale=None if ending is None else ending.rescaling(filters.unit, filters.largest),
        units=() if ending else tuple(filters.unit.tolist()),
    )


def _rescaled(place: _Place, ending: Ending | None) -> str:
    """Name of the module that gives what accumulators are rescaled to."""
    return place.name if ending is None or ending.before is None else f"{place.layer}.before"


def _lookup(place: _Place, ending: Ending, source: int) -> Iterator[IntegerLookup]:
    """The table of an activation that does not clamp, reading operation `source`."""
    if ending.before is not None:
        output = IntegerGrid.of(ending.output.grid())
        yield IntegerLookup(place.name, (source,), place.shape, output, ending.grid.lowest, ending.table())


def _squeeze_excitation(place: _Place, module: QuantizedSqueezeExcitation, number: int) -> Iterator[AnyOperation]:
    channels, (source,) = place.shape[0], place.grids
    pooled, hidden, gate = (IntegerGrid.of(q.grid()) for q in (module.pooled, module.hidden, module.gate))
    yield _average(place.part("pooled", place.sources[0], source, channels), module.pooled)
    reduction = place.part("hidden", number, pooled, module.fc1.out_channels)
    yield _convolution(reduction, _unbiased(module, module.fc1), module.fc1, Ending(module.hidden, F.relu))
    expansion = place.part("gate", number + 1, hidden, channels)
    gating = Ending(module.gate, F.hardsigmoid, module.before)
    yield _convolution(expansion, _unbiased(module, module.fc2), module.fc2, gating)
    yield from _lookup(expansion, gating, number + 2)
    ending = onto(module.output)
    unit = torch.tensor([source.scale * gate.scale], dtype=torch.float64)
    yield IntegerProduct(
        *(place.name, (place.sources[0], number + 3), place.shape, ending.grid),
        source_zero_points=(source.zero_point, gate.zero_point),
        rescale=ending.rescaling(unit, torch.tensor([source.reach * gate.reach])),
    )


def _unbiased(module: QuantizedSqueezeExcitation, conv: nn.Conv2d) -> DeployedConvolution:
    weights, filters = module.quantized(conv), conv.out_channels
    zero_point, scale = (numbers.flatten().expand(filters) for numbers in (weights.zero_point, weights.scale))
    return DeployedConvolution(weights.steps, zero_point, scale, torch.zeros(filters))


def _sum(place: _Place, ending: Ending) -> IntegerSum:
    grid = ending.grid
    factors = [source.scale / grid.scale for source in place.grids]
    multipliers, alignments, shift = common_shift(factors, sum(source.reach for source in place.grids))
    return IntegerSum(
        *(_rescaled(place, ending), place.sources, place.shape, grid),
        source_zero_points=tuple(source.zero_point for source in place.grids),
        multipliers=multipliers,
        alignments=alignments,
        rescale=Rescaling(torch.tensor([shift]), grid.zero_point, *ending.ends),
    )


def _concatenation(place: _Place, module: QuantizedConcatenation) -> IntegerConcatenation:
    ending = onto(module.output)
    return IntegerConcatenation(
        *(place.name, place.sources, place.shape, ending.grid),
        source_zero_points=tuple(source.zero_point for source in place.grids),
        groups=module.groups,
        group_id=module.group_id,
        rescales=tuple(
            ending.rescaling(torch.tensor([source.scale], dtype=torch.float64), torch.tensor([source.reach]))
            for source in place.grids
        ),
    )


def _average(place: _Place, output: ActivationQuantizer) -> IntegerAverage:
    (source,), ending = place.grids, onto(output)
    unit, largest = torch.tensor([source.scale], dtype=torch.float64), torch.tensor([source.reach * MOST_CELLS])
    return IntegerAverage(
        *(place.name, place.sources, place.shape, ending.grid),
        source_zero_point=source.zero_point,
        rescale=ending.rescaling(unit, largest),
    )
