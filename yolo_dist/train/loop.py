"""The training loop: epochs of one worker's share, its state, nothing of Ray."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from yolo_dist.compress.pruning.reestimation import NO_VARIANCE
from yolo_dist.compress.quantization import QuantizedNetwork
from yolo_dist.config import STRIDE_LIMIT
from yolo_dist.darknet.network import Network, is_new
from yolo_dist.data.loader import Batch, Loader, training_image_batches
from yolo_dist.data.mixture import Images
from yolo_dist.errors import NonFiniteLoss, TrainError
from yolo_dist.train.best import BestNetwork
from yolo_dist.train.config import TrainConfig
from yolo_dist.train.distilled import Distillation, Teacher
from yolo_dist.train.ema import ExponentialAverage
from yolo_dist.train.freezing import FrozenLayers
from yolo_dist.train.loss import TERMS, DetectionLoss, Loss
from yolo_dist.train.loss_guard import REMEDY, LossGuard
from yolo_dist.train.optimizer import Schedule, build_optimizer, momentum_of, rates_of, restore_momentum
from yolo_dist.train.precision import Precision
from yolo_dist.train.quantized import RangeTracking, share_ranges
from yolo_dist.train.sampling import sampling_factors
from yolo_dist.train.sparse import SparseTraining
from yolo_dist.train.statistics import averaged_statistics, settled_statistics, statistics_of
from yolo_dist.train.targets import Matches, assign_all
from yolo_dist.train.workers import Workers


@dataclass(frozen=True)
class EpochSummary:
    """What one epoch measured: mean loss terms over all workers, rate at its end (of all but the biases, and of each
    parameter group), images per second of all."""

    loss: dict[str, float]
    learning_rate: float
    learning_rates: dict[str, float]
    images_per_second: float


class Trainer:
    """Trains a network on one worker's share of every global batch.

    Args:
        network: the network; trained in place.
        shards: the training split.
        config: the stage.
        image_size: (width, height) of the input in pixels.
        workers: this worker's place in its group.
        threads: threads that decode and augment ahead of the network.
        teacher: of a distilled stage.

    Attributes:
        epoch, step: how far training has come: whole epochs, and batches of the next one.
        terms: this worker's loss terms in those batches, added up.

    Raises:
        ConfigError: a sparse stage for a network that has nothing to make sparse, or of no learning rate, or frozen
            layers that it has not, or class-balanced sampling of a mixture.
    """

    def __init__(
        self,
        network: Network,
        shards: Images,
        config: TrainConfig,
        image_size: tuple[int, int],
        workers: Workers | None = None,
        threads: int = 1,
        teacher: Teacher | None = None,
    ) -> None:
        self.config = config
        self.image_size = image_size
        self.workers = workers or Workers()
        self.device = self.workers.device
        self.network: Network = network.to(self.device, memory_format=torch.channels_last).train()  # type: ignore[call-overload]
        self.frozen = FrozenLayers(self.network, config.freeze)
        self.model = self.workers.share_gradients(self.network)
        self.average = ExponentialAverage(self.network)
        self.loader = Loader(
            shards,
            image_size,
            config.images_a_batch,
            augment=config.augment,
            seed=config.seed,
            rank=self.workers.rank,
            world_size=self.workers.size,
            threads=threads,
            factors=sampling_factors(shards, config),
            pinned=self.device.type == "cuda",
        )
        self.optimizer_steps = config.optimizer_steps(self.loader.samples)
        self.optimizer = build_optimizer(self.network, config.optimizer)
        steps = self.optimizer_steps * config.epochs
        self.schedule = Schedule(config.optimizer, steps, config.epochs, is_new(self.network))
        self.loss = DetectionLoss(self.network, config.loss)
        self.precision = Precision(config.autocast, self.device)
        self.best = BestNetwork(config.keep, config.patience, self.workers)
        self.epoch, self.step = 0, 0
        self.sparse: SparseTraining | None = None
        if config.sparsity is not None:
            rates, momentum = self.schedule.rates(), config.optimizer.momentum
            self.sparse = SparseTraining(self.network, config.sparsity, rates, momentum, self.frozen.layers)
        self.tracking: RangeTracking | None = None
        if isinstance(self.network, QuantizedNetwork):
            self._prepare_quantization(self.network)
        # after the average was copied from the network, which would copy its listeners too
        self.distillation = Distillation(self.network, teacher, self.precision) if teacher is not None else None
        self.term_names = TERMS + (self.distillation.terms if self.distillation else ())
        self.terms = torch.zeros(len(self.term_names), device=self.device)
        self.guard = LossGuard(self.term_names, self.epoch, self.workers)

    def run_epoch(self, after_step: Callable[[], None] | None = None) -> EpochSummary:
        """Train one epoch, or what is left of it.

        Args:
            after_step: called after every optimizer step but the epoch's last. What it raises ends the epoch there.

        Raises:
            NonFiniteLoss: the loss or a weight became NaN or infinite.
            TrainError: a batch norm has one number to normalise: a worker's only image, in maps of one pixel.
        """
        started = time.perf_counter()
        images, self.guard = 0, LossGuard(self.term_names, self.epoch, self.workers)
        for batch in self._batches(self.step):
            step_terms = self._train_batch(self.step, batch)
            self.terms += step_terms
            self.guard.watch(self.step, step_terms)
            self.step += 1
            images += len(batch)
            if after_step is not None and self.step % self.config.accumulate == 0 and self.step < self.loader.steps:
                after_step()
        self._require_finite()
        self._average_statistics()
        totals = self.workers.sum(torch.cat([self.terms, torch.tensor([float(images)], device=self.device)])).tolist()
        seconds = time.perf_counter() - started
        self.epoch, self.step = self.epoch + 1, 0
        self.terms.zero_()
        mean = [term / self.loader.steps for term in totals[:-1]]
        return EpochSummary(
            loss=dict(zip((*self.term_names, "total"), (*mean, sum(mean)), strict=True)),
            learning_rate=self.schedule.rate(self.epoch * self.optimizer_steps - 1),
            learning_rates=rates_of(self.optimizer),
            images_per_second=totals[-1] / seconds,
        )

    def gauge(self) -> dict[str, Any] | None:
        """The sparsity gauge of the averaged network, for a sparse stage."""
        return None if self.sparse is None else self.sparse.gauge(self.average.network).as_json()

    @contextmanager
    def judged(self, last: bool = False) -> Iterator[Network]:
        """The averaged network as it is evaluated, with statistics of its own; it keeps them after the `last` epoch.

        A quantised network is judged as it is: it was trained with the statistics that it froze.
        """
        network, images = self.average.network, self.config.statistics_images
        if images == 0 or isinstance(network, QuantizedNetwork):
            yield network
            return
        batches = training_image_batches(self.loader, images)
        with settled_statistics(network, batches, self.workers, kept=last, frozen=self.frozen.layers):
            yield network

    @property
    def finished(self) -> bool:
        """Whether all epochs are done, a sparse stage is as ready to be pruned as it was asked to become, or the stage
        has no more patience for a better network; both end it only after an epoch."""
        if self.step or not self.epoch:
            return False
        ready = self.sparse is not None and self.sparse.is_ready(self.average.network)
        return self.epoch >= self.config.epochs or ready or self.best.given_up

    def state(self) -> dict[str, Any]:
        """Everything that an interrupted stage needs to go on, after an optimizer step: tensors and numbers.

        All workers ask for it together; only the first one gets it, the others nothing. Randomness, order and schedules
        are functions of epoch and step.

        Raises:
            NonFiniteLoss: there is nothing worth going on from.
        """
        if self.step:
            self._require_finite()
        terms = self.workers.sum(self.terms)
        with averaged_statistics((self.network, self.average.network), self.workers, self.frozen.layers):
            if not self.workers.first:
                return {}
            return {
                "epoch": self.epoch,
                "step": self.step,
                "average_updates": self.average.updates,
                **_copied({"terms": terms}),
                "network": _copied(self.network.state_dict()),
                "average": _copied(self.average.network.state_dict()),
                "momentum": _copied(momentum_of(self.optimizer)),
                "precision": self.precision.state(),
                "best": self.best.state(),
            }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from what `state` gave, to any number of workers."""
        self.epoch, self.step = state["epoch"], state["step"]
        self.terms.copy_(state["terms"]).mul_(self.workers.first)  # a sum over all workers
        self.network.load_state_dict(state["network"])
        self.average.network.load_state_dict(state["average"])
        self.average.updates = state["average_updates"]
        self.best.restore(state["best"])
        restore_momentum(self.optimizer, state["momentum"])
        self.precision.restore(state.get("precision", {}))

    def global_batch(self, step: int) -> Batch:
        """Global batch `step` of this epoch, all workers' shares of it: made once more, it is the same."""
        return next(self._batches(step, self.loader.whole()))

    def _prepare_quantization(self, network: QuantizedNetwork) -> None:
        assert isinstance(self.average.network, QuantizedNetwork)
        share_ranges(self.average.network, network)
        if self.config.quantization is not None:
            steps = self.optimizer_steps * self.config.epochs
            self.tracking = RangeTracking(network, self.config.quantization, steps, self.workers)

    def _batches(self, start: int = 0, loader: Loader | None = None) -> Iterator[Batch]:
        size = self._size_of_step if self.config.multi_scale else None
        return (loader or self.loader).batches(self.epoch, start, size)

    def _size_of_step(self, seed: int, epoch: int, step: int) -> tuple[int, int]:
        """Input size of a global batch: the same on all workers."""
        assert self.config.multi_scale is not None
        generator = np.random.default_rng([seed, epoch, step])
        factor = generator.uniform(*self.config.multi_scale)
        width, height = (max(1, round(side * factor / STRIDE_LIMIT)) * STRIDE_LIMIT for side in self.image_size)
        return width, height

    def _train_batch(self, step: int, batch: Batch) -> Tensor:
        """Forward and backward of one batch, and an optimizer step if its group is complete; gives the loss terms."""
        group, last_of_group = divmod(step, self.config.accumulate)
        optimizer_step = self.epoch * self.optimizer_steps + group
        complete = last_of_group + 1 == self.config.accumulate or step + 1 == self.loader.steps
        images = self._images_of(step)
        # DDP averages gradients over workers; the loss terms are shares of a sum
        weight = self.workers.size * images / self._images_of_group(group)
        self._seed(step)
        parts = batch.parts(self.workers.passes)
        matches = [self._matches(part) for part in parts]
        counts = self.workers.sum_later(self.loss.counts(matches, self.device))
        terms = []
        for number, (part, matched) in enumerate(zip(parts, matches, strict=True)):
            last = complete and number + 1 == len(parts)
            with nullcontext() if last or self.workers.size == 1 else self.model.no_sync():  # type: ignore[operator]
                loss = self._loss(part, matched, counts, images, optimizer_step)
                self.precision.backward(loss.total * weight)
            terms.append(loss.terms)
        if complete:
            self._optimizer_step(optimizer_step)
        return torch.stack(terms).sum(dim=0)

    def _matches(self, batch: Batch) -> list[Matches]:
        size = (batch.images.shape[3], batch.images.shape[2])
        return assign_all(self.network.heads, size, batch.boxes, batch.labels, batch.image_index)

    def _seed(self, step: int) -> None:
        """Dropout is a function of where training is, so that it needs no state."""
        place = [self.config.seed, self.epoch, self.workers.rank, step]
        seed = int(np.random.SeedSequence(place).generate_state(1)[0])
        if self.device.type == "cuda":
            torch.cuda.manual_seed(seed)
        else:
            torch.default_generator.manual_seed(seed)  # `torch.manual_seed` asks all other kinds of devices too

    def _loss(
        self,
        batch: Batch,
        matches: list[Matches],
        counts: Callable[[], Tensor],
        global_images: int,
        optimizer_step: int,
    ) -> Loss:
        batch, matches = batch.to(self.device, non_blocking=True), [match.to(self.device) for match in matches]
        # a worker without a share of a short last batch still takes part in the group's messages, but learns nothing
        self.network.train(len(batch) > 0)
        if self.tracking is not None:
            self.tracking.before_batch(optimizer_step, training=len(batch) > 0)
        self.frozen.hold()
        pixels = (batch.images if len(batch) else batch.images.new_zeros(1, *batch.images.shape[1:])).float().div_(255)
        try:
            with self.precision.forward():
                outputs = self.model(pixels)
        except ValueError as error:
            if NO_VARIANCE not in str(error):
                raise
            raise TrainError(
                f"epoch {self.epoch + 1}, step {self.step + 1}: worker {self.workers.rank} has one image, with "
                "maps of one pixel, and so no variance; take another batch_size, or a larger image_size"
            ) from None
        known = batch.known if len(batch) else None
        loss = self.loss(outputs, matches, global_images, self.schedule.iou_share(optimizer_step), known, counts())
        if self.distillation is not None:
            loss = loss.joined_by(self.distillation(pixels, outputs, matches, global_images))
        return loss if len(batch) else Loss(loss.total * 0, loss.terms * 0)

    def _images_of(self, step: int) -> int:
        """Images in a global batch; the last of an epoch may be short."""
        return min(self.config.images_a_batch, self.loader.samples - step * self.config.images_a_batch)

    def _images_of_group(self, group: int) -> int:
        first = group * self.config.accumulate
        steps = range(first, min(first + self.config.accumulate, self.loader.steps))
        return sum(self._images_of(step) for step in steps)

    def _optimizer_step(self, step: int) -> None:
        self.schedule.apply(self.optimizer, step)
        self.precision.unscale(self.optimizer)
        if self.sparse is not None:
            self.sparse.before_step(step)
        self.precision.step(self.optimizer)
        self.optimizer.zero_grad(set_to_none=True)
        if self.tracking is not None:
            self.tracking.after_step(step)
        self.average.update(self.network)

    def _average_statistics(self) -> None:
        """Every worker has seen other images: their batch-norm statistics become one."""
        for network in (self.network, self.average.network):
            self.workers.average_(statistics_of(network, self.frozen.layers))

    def _require_finite(self) -> None:
        """Look at the losses up to now, and at the weights: what the last step did shows in no loss yet."""
        self.guard.check()
        tensors = self.average.network.state_dict().values()
        if not torch.stack([torch.isfinite(tensor).all() for tensor in tensors]).all():
            message = f"weights are not finite after epoch {self.epoch + 1}, step {self.step}; {REMEDY}"
            raise NonFiniteLoss(message, self.step - 1)


def _copied(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Copies of tensors wherever they are, on the CPU and without gaps, as files have them."""
    return {name: torch.empty(tensor.shape, dtype=tensor.dtype).copy_(tensor) for name, tensor in tensors.items()}
