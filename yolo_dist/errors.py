"""Everything a user can meet, each saying what to do next.

YoloDistError              the work failed: exit 1
├── InputError             the input is wrong: exit 2
│   ├── StorageError           URL that cannot be reached, and the variables to set
│   ├── ClusterError           cluster or job that cannot be reached, and how to
│   ├── RunHeld                a run that another process writes, and which
│   ├── ConfigError            recipe, card or option is wrong (all problems at once)
│   ├── DataError
│   │   ├── AnnotationError    file, place, what was expected
│   │   ├── ImageError         file, what is wrong with it
│   │   ├── ConversionError    more bad images or boxes than allowed
│   │   └── ShardCorrupt       shard, expected and actual hash
│   ├── ModelError
│   │   ├── CfgError           file, line, key
│   │   ├── WeightsMismatch    floats expected and found, layer reached
│   │   ├── BundleCorrupt      bundle and the file that does not match
│   │   ├── DumpCorrupt        a dump's folder and the file that does not match
│   │   └── NonFiniteOutput    weights that make no sense
│   ├── QuantizationError
│   │   ├── NotCalibrated      a quantised network without ranges
│   │   ├── AlreadyQuantized   a network that would be quantised twice
│   │   └── NotExportable      layer, and the setting that a format cannot express
│   └── PruneError
│       ├── LayerWouldVanish   layer, largest percent that works
│       └── NotSparseEnough    predicted damage, how to train sparser or force
├── TrainError
│   ├── NonFiniteLoss          step, terms, what to change
│   ├── OutOfMemory            worker, and a smaller batch size
│   └── Interrupted            by which signal, and that the same command goes on: exit 128 + its number
├── MachineFailed          worker, node or full disk; the same command goes on
└── ProofError             masked and compact network disagree; nothing was written
"""

from signal import Signals
from typing import Any


class YoloDistError(Exception):
    """The work failed although the input was right."""

    exit_code = 1

    def __reduce__(self) -> tuple[Any, ...]:
        return _restored, (type(self), self.args, vars(self))  # it comes from workers, whatever its class is made from


def _restored(kind: type[YoloDistError], args: tuple[Any, ...], values: dict[str, Any]) -> YoloDistError:
    error = kind.__new__(kind, *args)
    vars(error).update(values)
    return error


class InputError(YoloDistError):
    """The input is wrong; nothing was written."""

    exit_code = 2


class StorageError(InputError):
    """An object store cannot be reached, or refuses the credentials; names the URL."""


class ClusterError(InputError):
    """A cluster does not answer, refuses the token, or has no such job; names its address."""


class RunHeld(InputError):
    """Another process writes the run at the moment; says which."""


class ConfigError(InputError):
    """A recipe, a card or an option is wrong; `problems` lists every mistake found."""

    def __init__(self, source: str, problems: list[str]) -> None:
        self.source = source
        self.problems = problems
        super().__init__("\n".join(f"{source}: {problem}" for problem in problems))


class DataError(InputError):
    """Images, annotations or shards are wrong."""


class AnnotationError(DataError):
    """An annotation file cannot be read; names file and place."""


class ImageError(DataError):
    """An image cannot be used; names the file."""


class ConversionError(DataError):
    """Too much of a dataset is bad; names the first examples."""


class ShardCorrupt(DataError):
    """A shard's bytes do not match its manifest."""

    def __init__(self, shard: str, expected: str, actual: str) -> None:
        super().__init__(f"{shard}: sha256 is {actual}, the manifest says {expected}; convert the split again")


class ModelError(InputError):
    """A cfg, weights file or bundle is wrong."""


class CfgError(ModelError):
    """A Darknet cfg is wrong; names file, line and key."""


class WeightsMismatch(ModelError):
    """A weights file does not hold what its cfg asks for."""


class BundleCorrupt(ModelError):
    """A bundle's files do not match its record."""


class DumpCorrupt(ModelError):
    """The files of a dump for an FPGA do not match its index."""


class NonFiniteOutput(ModelError):
    """A network gives NaN or infinity on an image."""


class QuantizationError(InputError):
    """A network cannot be quantised as asked."""


class NotCalibrated(QuantizationError):
    """A quantised network whose activations have no ranges."""


class AlreadyQuantized(QuantizationError):
    """A network would be quantised a second time."""


class NotExportable(QuantizationError):
    """A format has no way to express a network; names the layer or setting."""


class PruneError(InputError):
    """A pruning request cannot be met."""


class LayerWouldVanish(PruneError):
    """A layer would keep no channel."""

    def __init__(self, layer: int, channels: int, percent: float, largest_percent: float) -> None:
        super().__init__(
            f"layer {layer} would keep 0 of {channels} channels at percent {percent:g}; "
            f"the largest percent that works is {largest_percent:g}"
        )


class NotSparseEnough(PruneError):
    """Pruning would cost more accuracy than allowed; says how to train sparser or to force."""


class TrainError(YoloDistError):
    """Training failed."""


class NonFiniteLoss(TrainError):
    """The loss became NaN or infinite; names the step (`step` counts from 0 in its epoch) and the terms."""

    def __init__(self, message: str, step: int | None = None, loss: dict[str, float] | None = None) -> None:
        self.step = step
        self.loss = loss or {}
        super().__init__(message)


class Interrupted(TrainError):
    """Training or a search was asked to end by a signal, and kept its state before it did."""

    def __init__(self, signal: int, place: str, next_step: str = "the same command goes on from there") -> None:
        super().__init__(f"stopped by {Signals(signal).name} {place}; {next_step}")
        self.exit_code = 128 + signal


class OutOfMemory(TrainError):
    """A worker has too little memory; names what needs less of it."""


class MachineFailed(YoloDistError):
    """What the work ran on failed, and not the work: a worker was lost too often, or a disk is full."""


class ProofError(YoloDistError):
    """The masked and the compact network disagree; nothing was written."""
