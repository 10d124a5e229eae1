"""What a training stage is told."""

from typing import Annotated, Literal, Self

from annotated_types import Ge, Gt
from pydantic import Field, model_validator

from yolo_dist.compress.quantization import QuantizedTrainingConfig
from yolo_dist.compress.sparsity import SparsityConfig
from yolo_dist.config import Config
from yolo_dist.data.augment import AugmentConfig
from yolo_dist.train.loss import LossConfig
from yolo_dist.train.optimizer import OptimizerConfig

AtLeastOne = Annotated[int, Ge(1)]


class TrainConfig(Config):
    """One training stage. `sparsity` and `quantization` are blocks of it, not other kinds of training."""

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
    autocast: bool | Literal["auto"] = "auto"
    """bfloat16 for the network's forward pass; `auto` where the device has instructions for it."""
    multi_scale: tuple[Annotated[float, Gt(0)], Annotated[float, Gt(0)]] | None = None
    """Smallest and largest input size a batch may have, as factors of the image size."""
    evaluate_every: Annotated[int, Ge(0)] | None = None
    """Epochs between evaluations; 0 only at the end, and about ten times a stage by default."""
    statistics_images: Annotated[int, Ge(0)] = 64
    """Training images on which the averaged network's batch-norm statistics are measured anew whenever it is evaluated;
    0 takes the running ones."""
    checkpoint_every: AtLeastOne = 1
    """Epochs between checkpoints, from which an interrupted stage goes on."""
    optimizer: OptimizerConfig = Field(default_factory=OptimizerConfig)
    loss: LossConfig = Field(default_factory=LossConfig)
    augment: AugmentConfig = Field(default_factory=AugmentConfig)
    sparsity: SparsityConfig | None = None
    quantization: QuantizedTrainingConfig | None = None

    @model_validator(mode="after")
    def _scales_in_order(self) -> Self:
        if self.multi_scale and self.multi_scale[0] > self.multi_scale[1]:
            raise ValueError("multi_scale: the smaller factor comes first")
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

    def evaluates_after(self, epoch: int) -> bool:
        """Whether the network is evaluated after epoch `epoch` (from 0), which is not the last."""
        every = max(1, self.epochs // 10) if self.evaluate_every is None else self.evaluate_every
        return bool(every) and (epoch + 1) % every == 0 and epoch + 1 < self.epochs
