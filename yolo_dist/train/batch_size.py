"""How many images fit into memory: `batch_size: auto`, and what to say when they do not.

The memory of a step grows by the same number of bytes with every image. Two small steps give that number; the largest
batch that should fit is then tried. On a CPU the try alone would prove nothing: Linux promises memory that it does not
have, and ends the process that takes it.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import deepcopy

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks
from upath import UPath

from yolo_dist.config import STRIDE_LIMIT
from yolo_dist.darknet.network import Network
from yolo_dist.errors import OutOfMemory
from yolo_dist.freed_memory import return_freed_memory
from yolo_dist.node_probe import available_memory
from yolo_dist.shortage import is_lack_of_memory
from yolo_dist.storage import publish
from yolo_dist.train.config import TrainConfig
from yolo_dist.train.loss import DetectionLoss
from yolo_dist.train.optimizer import build_optimizer
from yolo_dist.train.precision import Precision
from yolo_dist.train.targets import assign_all
from yolo_dist.train.workers import Workers

BATCH_SIZE_FILE = "batch_size.json"
USABLE = 0.8
"""Share of the spare memory that a batch may take: images on their way, messages and evaluation need some too."""
OVER_SAVED = 1.5
"""Peak of a step on a CPU over what its forward pass keeps for the backward pass: 1.37 for yolov3-tiny at 416 px in
float32 and 1.25 in bfloat16, as its process grew from 2 to 8 images."""
WEIGHTS = 4
"""Times that a training holds weights on a CPU: the average, gradients, momentum, and what a message packs together."""

StepBytes = Callable[[int], int]
"""Takes one step with so many images, and gives the bytes that it needed at its peak."""


def settle_batch_size(
    network: Network, config: TrainConfig, image_size: tuple[int, int], workers: Workers, output: UPath
) -> TrainConfig:
    """The stage with a number in place of `batch_size: auto`, the same on all workers, and noted in `output`.

    A stage that goes on takes the number that it started with, for its order of samples depends on it.

    Raises:
        OutOfMemory: not even one image a worker fits.
    """
    if config.batch_size != "auto":
        return config
    found = noted_batch_size(output)
    if found is None:
        step = TrialStep(network, config, image_size, workers.device)
        own = largest_batch(step, spare_bytes(workers.device), config.nominal_batch, workers.parts)
        found = -int(workers.largest(torch.tensor([-own], device=workers.device)))
        if found == 0:
            raise OutOfMemory(_advice(found, image_size))
        if workers.first:
            publish(output / BATCH_SIZE_FILE, str(found))
    return config.model_copy(update={"batch_size": found})


def noted_batch_size(output: UPath) -> int | None:
    """What `auto` came to in a stage with this output; None before, and for all other stages."""
    path = output / BATCH_SIZE_FILE
    return int(path.read_text()) if path.exists() else None


@contextmanager
def lack_of_memory_explained(
    network: Network, config: TrainConfig, image_size: tuple[int, int], workers: Workers
) -> Iterator[None]:
    """Around a training step: what an allocator says becomes what to do.

    Raises:
        OutOfMemory: the batch did not fit; names one that does.
    """
    try:
        yield
        return
    except (RuntimeError, MemoryError) as error:
        if not is_lack_of_memory(error):
            raise
    # not in the handler: there the error still holds on to all tensors of the step
    network.zero_grad(set_to_none=True)
    step = TrialStep(network, config, image_size, workers.device)
    images = config.images_a_batch
    fitting = largest_batch(step, spare_bytes(workers.device), images - 1, workers.parts)
    raise OutOfMemory(
        f"worker {workers.rank} ran out of memory with {share_of(images, workers.parts)} images at once "
        f"(batch_size {images}); {_advice(fitting, image_size)}"
    )


def largest_batch(step_bytes: StepBytes, spare: int, limit: int, parts: int = 1) -> int:
    """Largest power of two, up to `limit`, of images in a global batch of which a part fits; 0 if none.

    Args:
        step_bytes: takes a step of this worker's; raises what an allocator raises where that fails.
        spare: bytes that there are.
        limit: most images in a global batch.
        parts: in which a batch is trained, by all workers together.
    """
    sizes = [1 << power for power in range(max(limit, 0).bit_length())]
    one, two = (_bytes_or_none(step_bytes, images) for images in (1, 2))
    if one is None or one > spare or not sizes:
        return 0
    each = spare if two is None else max(two - one, 1)
    promising = [size for size in sizes if one + (share_of(size, parts) - 1) * each <= spare]
    return next(
        (size for size in reversed(promising) if _bytes_or_none(step_bytes, share_of(size, parts)) is not None), 0
    )


def share_of(batch: int, parts: int) -> int:
    """Images of a global batch that one of its parts has at most."""
    return -(-batch // parts)


def _bytes_or_none(step_bytes: StepBytes, images: int) -> int | None:
    try:
        return step_bytes(images)
    except (RuntimeError, MemoryError) as error:
        if not is_lack_of_memory(error):
            raise
        return None


class TrialStep:
    """A training step of a network's copy on black images: weights, statistics and randomness stay as they are.

    The copy also stands for the averaged network, which is not there yet when `auto` is asked for.
    """

    def __init__(
        self, network: Network, config: TrainConfig, image_size: tuple[int, int], device: torch.device
    ) -> None:
        self.network = network
        self.config = config
        self.device = device
        self.precision = Precision(config.autocast, device)
        largest = config.multi_scale[1] if config.multi_scale else 1.0
        self.width, self.height = (max(1, round(side * largest / STRIDE_LIMIT)) * STRIDE_LIMIT for side in image_size)

    def __call__(self, images: int) -> int:
        """Take a step with so many images, and give the bytes that training needs at its peak beside the network."""
        devices = [self.device] if self.device.type == "cuda" else []
        try:
            with torch.random.fork_rng(devices), _peak(self.device) as peak:
                self._step(images)
        finally:
            return_freed_memory()
            if devices:
                torch.cuda.empty_cache()
        weights = sum(parameter.nbytes for parameter in self.network.parameters())
        return peak() + (0 if devices else WEIGHTS * weights)

    def _step(self, images: int) -> None:
        network: Network = deepcopy(self.network).to(self.device, memory_format=torch.channels_last).train()  # type: ignore[call-overload]
        pixels = torch.zeros(images, network.cfg.net.channels, self.height, self.width, device=self.device)
        with self.precision.forward():
            outputs = network(pixels)
        size = torch.tensor([self.width, self.height, self.width, self.height], device=self.device)
        boxes = (size * torch.tensor([0.4, 0.4, 0.6, 0.6], device=self.device)).expand(images, 4)
        number = torch.arange(images, device=self.device)
        matches = assign_all(network.heads, (self.width, self.height), boxes, torch.zeros_like(number), number)
        DetectionLoss(network, self.config.loss)(outputs, matches, images, 0.0).total.backward()
        build_optimizer(network, self.config.optimizer).step()


@contextmanager
def _peak(device: torch.device) -> Iterator[Callable[[], int]]:
    """Bytes that the block takes on a device at its peak, once it is over."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        yield lambda: torch.cuda.max_memory_allocated(device) - before
        return
    saved: dict[int, int] = {}

    def see(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        saved[storage.data_ptr()] = storage.nbytes()
        return tensor

    with saved_tensors_hooks(see, lambda tensor: tensor):
        yield lambda: round(OVER_SAVED * sum(saved.values()))


def spare_bytes(device: torch.device) -> int:
    """Bytes on a device that one worker's step may take."""
    if device.type == "cuda":
        return round(USABLE * torch.cuda.mem_get_info(device)[0])
    return round(USABLE * available_memory() / int(os.environ.get("LOCAL_WORLD_SIZE", "1")))


def _advice(fitting: int, image_size: tuple[int, int]) -> str:
    if fitting == 0:
        return f"not one image of {image_size[0]}×{image_size[1]} a worker fits; take a smaller image_size"
    return f"{fitting} would fit: set batch_size: {fitting} or auto; nominal_batch keeps optimizer steps as they are"
