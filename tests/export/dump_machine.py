"""A machine that knows nothing but docs/fpga.md: it runs a dump with NumPy."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Integers = NDArray[np.int64]


def run(folder: Path, image: Integers) -> list[Integers]:
    """The accumulators of all heads for the steps of one image [C, H, W]."""
    index = json.loads((folder / "index.json").read_text())
    outputs = {-1: image}
    for number, operation in enumerate(index["operations"]):
        inputs = [outputs[source] for source in operation["sources"]]
        outputs[number] = KINDS[operation["kind"]](folder, operation, *inputs)
    return [outputs[head["operation"]] for head in index["heads"]]


def array(folder: Path, record: dict[str, Any]) -> Integers:
    if "every" in record:
        return np.full(record["shape"], record["every"], np.int64)
    numbers = np.fromfile(folder / record["file"], record["type"]).astype(np.int64)
    if record["tile"] is None:
        return numbers.reshape(record["shape"])
    (outputs, inputs, height, width), (rows, columns) = record["shape"], record["tile"]
    weight, read = np.empty(record["shape"], np.int64), 0
    for o in range(0, outputs, rows):
        for i in range(0, inputs, columns):
            tile = weight[o : o + rows, i : i + columns]
            tile[:] = numbers[read : read + tile.size].reshape(*tile.shape[:2], height, width)
            read += tile.size
    return weight


def shifted(numbers: Integers, shift: Integers, cells: int = 1) -> Integers:
    """To the right by `shift` and divided by `cells`, halves away from zero."""
    sizes, divisors = abs(numbers) << np.maximum(-shift, 0), cells << np.maximum(shift, 0)
    return np.asarray(np.sign(numbers) * ((2 * sizes + divisors) // (2 * divisors)))


def rescaled(folder: Path, rescale: dict[str, Any], numbers: Integers, cells: int = 1) -> Integers:
    shift = array(folder, rescale["shift"]).reshape(-1, 1, 1)
    steps = shifted(numbers, shift, cells) + rescale["zero_point"]
    return np.asarray(np.clip(steps, rescale["lowest"], rescale["highest"]))


def convolution(folder: Path, o: dict[str, Any], x: Integers) -> Integers:
    zero_point = array(folder, o["weight_zero_point"]).reshape(-1, 1, 1, 1)
    weight = array(folder, o["weight"]) - zero_point
    padding, stride, dilation = o["padding"], o["stride"], o["dilation"]
    padded = np.pad(x - o["source_zero_point"], ((0, 0), (padding, padding), (padding, padding)))
    filters, inputs, size, _ = weight.shape
    channels, height, width = o["shape"]
    sums = np.zeros((channels, height, width), np.int64)
    for f in range(filters):
        group = padded[f // (filters // o["groups"]) * inputs :][:inputs]
        for v in range(size):
            for u in range(size):
                rows = slice(v * dilation, v * dilation + (height - 1) * stride + 1, stride)
                columns = slice(u * dilation, u * dilation + (width - 1) * stride + 1, stride)
                sums[f] += (group[:, rows, columns] * weight[f, :, v, u].reshape(-1, 1, 1)).sum(0)
    accumulators = shifted(sums, -array(folder, o["alignment"]).reshape(-1, 1, 1))
    accumulators += array(folder, o["bias"]).reshape(-1, 1, 1)
    return accumulators if o["rescale"] is None else rescaled(folder, o["rescale"], accumulators)


def lookup(folder: Path, o: dict[str, Any], x: Integers) -> Integers:
    return np.asarray(array(folder, o["table"])[x - o["lowest"]])


def total(folder: Path, o: dict[str, Any], *inputs: Integers) -> Integers:
    terms = zip(inputs, o["source_zero_points"], o["alignments"], strict=True)
    return rescaled(folder, o["rescale"], np.asarray(sum((x - zero) << alignment for x, zero, alignment in terms)))


def concatenation(folder: Path, o: dict[str, Any], *inputs: Integers) -> Integers:
    parts = zip(inputs, o["source_zero_points"], o["rescales"], strict=True)
    return np.concatenate([rescaled(folder, rescale, part(folder, o, x) - zero) for x, zero, rescale in parts])


def average(folder: Path, o: dict[str, Any], x: Integers) -> Integers:
    sums = (x - o["source_zero_point"]).sum((1, 2), keepdims=True)
    return rescaled(folder, o["rescale"], sums, cells=x[0].size)


def multiplied(folder: Path, o: dict[str, Any], x: Integers, gate: Integers) -> Integers:
    first, second = o["source_zero_points"]
    return rescaled(folder, o["rescale"], (x - first) * (gate - second))


def maximum(_: Path, o: dict[str, Any], x: Integers) -> Integers:
    sides = (o["before"], o["after"])
    padded = np.pad(x, ((0, 0), sides, sides), constant_values=-(1 << 40))
    _, height, width = o["shape"]
    rows, columns = np.arange(height) * o["stride"], np.arange(width) * o["stride"]
    offsets = [(v, u) for v in range(o["window"]) for u in range(o["window"])]
    return np.asarray(np.max([padded[:, rows[:, None] + v, columns + u] for v, u in offsets], 0))


def upsampling(_: Path, o: dict[str, Any], x: Integers) -> Integers:
    return np.kron(x, np.ones((1, o["factor"], o["factor"]), np.int64))


def part(_: Path, o: dict[str, Any], x: Integers) -> Integers:
    return np.asarray(np.split(x, o["groups"])[o["group_id"]])


KINDS: dict[str, Callable[..., Integers]] = {
    "convolution": convolution,
    "lookup": lookup,
    "sum": total,
    "concatenation": concatenation,
    "average": average,
    "product": multiplied,
    "maximum": maximum,
    "upsampling": upsampling,
    "slice": part,
}
