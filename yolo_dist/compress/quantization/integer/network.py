"""A network of integers: from the steps of the image to the accumulators that heads read."""

from dataclasses import dataclass
from typing import Annotated, ClassVar

from pydantic import ConfigDict, Field
from torch import Tensor

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
from yolo_dist.compress.quantization.integer.rescaling import IntegerGrid
from yolo_dist.darknet.channels import in_channels
from yolo_dist.darknet.network import finished_outputs

AnyOperation = Annotated[
    IntegerConvolution
    | IntegerLookup
    | IntegerSum
    | IntegerConcatenation
    | IntegerAverage
    | IntegerProduct
    | IntegerMaximum
    | IntegerUpsampling
    | IntegerSlice,
    Field(discriminator="kind"),
]


@dataclass(frozen=True)
class IntegerHead:
    """A head: the convolution whose accumulators it reads, by its place, and its number of anchors."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    operation: int
    anchors: int


@dataclass(frozen=True)
class IntegerNetwork:
    """A quantised network as a list of integer operations.

    Attributes:
        image: grid of the image's 8-bit steps, which are its pixels if the scale is 1/255.
        image_shape: channels, height and width that the operations' shapes are for.
        operations: in the order of execution; each reads only earlier ones.
        heads: in the cfg's order.
    """

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    image: IntegerGrid
    image_shape: tuple[int, int, int]
    operations: tuple[AnyOperation, ...]
    heads: tuple[IntegerHead, ...]

    def __call__(self, images: Tensor) -> list[Tensor]:
        """Raw outputs of the heads for float images [B, C, H, W] in 0..1, as those of `Network`."""
        accumulators = self.run(self.image.steps(in_channels(images, self.image_shape[0])))
        return [self._raw(head, numbers) for head, numbers in zip(self.heads, accumulators, strict=True)]

    def run(self, image: Tensor) -> list[Tensor]:
        """The accumulators that heads read, int64, for the image's steps, int64 [B, C, H, W]."""
        outputs, accumulators = {IMAGE: image}, {}
        read = {head.operation for head in self.heads}
        finished = finished_outputs([[s for s in operation.sources if s != IMAGE] for operation in self.operations])
        for place, operation in enumerate(self.operations):
            outputs[place] = operation(*[outputs[source] for source in operation.sources])
            if place in read:
                accumulators[place] = outputs[place]
            for source in finished[place]:
                del outputs[source]
        return [accumulators[head.operation] for head in self.heads]

    @property
    def shifts_only(self) -> bool:
        """Whether every rescaling is a shift."""
        return not any(operation.multiplies_to_rescale for operation in self.operations)

    def _raw(self, head: IntegerHead, accumulators: Tensor) -> Tensor:
        convolution = self.operations[head.operation]
        assert isinstance(convolution, IntegerConvolution)
        batch, channels, height, width = accumulators.shape
        rows = convolution.values(accumulators).view(batch, head.anchors, channels // head.anchors, height, width)
        return rows.permute(0, 1, 3, 4, 2)
