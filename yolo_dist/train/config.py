"""What a training stage is told."""

import math
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from annotated_types import Ge, Gt, Le
from pydantic import Discriminator, Field, Tag, model_validator

from yolo_dist.compress.distillation import DistillationConfig
from yolo_dist.compress.quantization import QuantizedTrainingConfig
from yolo_dist.compress.sparsity import SparsityConfig
from yolo_dist.config import Config
from yolo_dist.data.augment import AugmentConfig
from yolo_dist.train.best import Keep
from yolo_dist.train.freezing import Freeze
from yolo_dist.train.loss import LossConfig
from yolo_dist.train.optimizer import OptimizerConfig
from yolo_dist.train.precision import Autocast

AtLeastOne = Annotated[int, Ge(1)]


def _kind_of_every(value: Any) -> str:
    return "block" if isinstance(value, Mapping | Config) else "epochs"


class CheckpointEvery(Config):
    """How often a checkpoint is written, other than after so many epochs: one of both."""

    steps: AtLeastOne | None = None
    """Optimizer steps between checkpoints."""
    minutes: Annotated[float, Gt(0)] | None = None
    """Minutes between checkpoints."""

    @model_validator(mode="after")
    def _one(self) -> Self:
        if (self.steps is None) == (self.minutes is None):
            raise ValueError("give a number of epochs, {steps: 200} or {minutes: 10}")
        return self


class TrainConfig(Config):
    """One training stage. `sparsity`, `quantization` and `distillation` are blocks of it, not other kinds of
    training."""

    epochs: AtLeastOne = 100
    """Passes over the training split."""
    batch_size: AtLeastOne | Literal["auto"] = 16
    """Images in a global batch, divided among the workers; `auto` is the largest power of two, up to `nominal_batch`,
    that fits into memory."""
    nominal_batch: AtLeastOne = 64
    """Images in an optimizer step; smaller batches are accumulated up to it."""
    seed: Annotated[int, Ge(0)] = 0
    """Seed of sample order, augmentation and dropout."""
    from_scratch: bool = False
    """Train the start's network from new weights (of `seed`), as a control for what its weights are worth."""
    sampling: Literal["class-balanced"] | None = None
    """Which images an epoch shows: each once by default, or those of rare classes more often."""
    rare_below: Annotated[float, Gt(0), Le(1)] | None = None
    """Share of the images under which a class is rare in class-balanced sampling; the classes' median by default."""
    freeze: Freeze | None = None
    """Layers that stay as they are: `backbone`, the first so many, or [first, last] pairs."""
    autocast: Autocast = "auto"
    """Numbers of half the width in the network's forward pass: `bfloat16`, or `float16` with scaled gradients; `true`
    for the one that suits the device, and `auto` only where the device is faster with it."""
    multi_scale: tuple[Annotated[float, Gt(0)], Annotated[float, Gt(0)]] | None = None
    """Smallest and largest input size a batch may have, as factors of the image size."""
    evaluate_every: Annotated[int, Ge(0)] | None = None
    """Epochs between evaluations; 0 only at the end, and about ten times a stage by default."""
    patience: AtLeastOne | None = None
    """Evaluations in a row without a better mAP after which the stage ends before its last epoch."""
    keep: Keep | None = None
    """Which network the stage gives: after its `last` epoch, as by default, or with the `best` mAP of all evaluations.
    Where it is said and they differ, the other lies beside it."""
    statistics_images: Annotated[int, Ge(0)] = 64
    """Training images, augmented, on which the averaged network's batch-norm statistics are measured anew whenever it
    is evaluated; 0 takes the running ones."""
    checkpoint_every: Annotated[
        Annotated[AtLeastOne, Tag("epochs")] | Annotated[CheckpointEvery, Tag("block")], Discriminator(_kind_of_every)
    ] = 1
    """Epochs between checkpoints, from which an interrupted stage goes on; or a block of steps or minutes."""
    checkpoints_kept: AtLeastOne | None = None
    """Newest checkpoints that stay; 2 by default."""
    optimizer: OptimizerConfig = Field(default_factory=OptimizerConfig)
    loss: LossConfig = Field(default_factory=LossConfig)
    augment: AugmentConfig = Field(default_factory=AugmentConfig)
    sparsity: SparsityConfig | None = None
    quantization: QuantizedTrainingConfig | None = None
    distillation: DistillationConfig | None = None

    @model_validator(mode="after")
    def _scales_in_order(self) -> Self:
        if self.multi_scale and self.multi_scale[0] > self.multi_scale[1]:
            raise ValueError("multi_scale: the smaller factor comes first")
        return self

    @model_validator(mode="after")
    def _rare_by_something(self) -> Self:
        if self.rare_below is not None and self.sampling is None:
            raise ValueError("rare_below is for sampling: class-balanced; add it, or leave rare_below out")
        return self

    @model_validator(mode="after")
    def _nothing_random_frozen(self) -> Self:
        if self.freeze is not None and self.from_scratch:
            raise ValueError("freeze keeps layers as they were trained, and from_scratch makes them new; leave one out")
        return self

    @model_validator(mode="after")
    def _something_to_wait_for(self) -> Self:
        if self.patience is not None and self.evaluate_every == 0:
            raise ValueError("patience counts evaluations, and evaluate_every 0 makes none; give another number")
        return self

    @property
    def images_a_batch(self) -> int:
        """`batch_size` once it is a number."""
        if self.batch_size == "auto":
            raise ValueError("batch_size: auto is settled first, by settle_batch_size")
        return self.batch_size

    @property
    def accumulate(self) -> int:
        """Global batches in an optimizer step."""
        return max(1, round(self.nominal_batch / self.images_a_batch))

    def optimizer_steps(self, samples: int) -> int:
        """Optimizer steps of an epoch that shows so many images."""
        return math.ceil(math.ceil(samples / self.images_a_batch) / self.accumulate)

    def evaluates_after(self, epoch: int) -> bool:
        """Whether the network is evaluated after epoch `epoch` (from 0), which is not the last."""
        every = max(1, self.epochs // 10) if self.evaluate_every is None else self.evaluate_every
        return bool(every) and (epoch + 1) % every == 0 and epoch + 1 < self.epochs
