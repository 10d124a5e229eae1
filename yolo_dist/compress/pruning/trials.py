"""What a change costs before anything is written: plans are carried out, evaluated and forgotten.

The compact network is evaluated, not the masked one: they are equal, as every proof shows, and it is faster.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from torch import Tensor

from yolo_dist.compress.pruning.carry_out import carry_out
from yolo_dist.compress.pruning.plan import PrunePlan
from yolo_dist.compress.pruning.reestimation import reestimate_batchnorm
from yolo_dist.config import Config
from yolo_dist.darknet.network import Network
from yolo_dist.darknet.shapes import count_parameters
from yolo_dist.data.loader import image_batches
from yolo_dist.data.mixture import Images
from yolo_dist.evaluate.evaluator import EvaluationConfig, evaluate
from yolo_dist.evaluate.latency import computing_threads

Plan = TypeVar("Plan")
"""What is tried: a `PrunePlan`, or another description of a change."""

Progress = Callable[[int, int], None]
"""Told after each trial how many of how many are done."""


class Outcome(Config):
    """A network after a change, without any fine-tuning."""

    parameters: int
    """That are left."""
    map: float
    """Average precision on the validation images, mean over IoU 0.50:0.95."""
    map50: float
    """At IoU 0.5."""


@dataclass(frozen=True)
class TrialSetup:
    """What all trials of one network share; travels to workers.

    Attributes:
        network: to change; stays as it is.
        image_size: (width, height) of its input in pixels.
        validation: the images to evaluate on; `first` makes them fewer.
        train: images for `reestimate_images`, and for what else a trial measures.
        reestimate_images: on which batch-norm statistics are measured anew after the cut.
        compensate: whether what cut channels emitted is pushed into their readers.
        evaluation: how accuracy is measured.
        max_detections: the dataset's number of detections an image and class.
    """

    network: Network
    image_size: tuple[int, int]
    validation: Images
    train: Images | None = None
    reestimate_images: int = 0
    compensate: bool = True
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    max_detections: int = 100


def evaluate_plans(
    setup: TrialSetup,
    plans: Sequence[PrunePlan],
    workers: int = 0,
    progress: Progress | None = None,
    option: str = "cluster.workers",
) -> list[Outcome]:
    """What each plan would leave, in their order; the same for any number of workers.

    Args:
        setup: the network, and how it is evaluated.
        plans: to carry out, each on the whole network.
        workers: trials at a time as Ray tasks of one core each; 0 makes them in this process.
        progress: told after each trial.
        option: where the number of workers is set, for messages.

    Raises:
        YoloDistError: what went wrong in a trial; `ConfigError` for more workers than there are cores.
    """
    outcomes: dict[int, Outcome] = {}
    for number, outcome in outcomes_of(try_plan, setup, plans, workers, option):
        outcomes[number] = outcome
        if progress:
            progress(len(outcomes), len(plans))
    return [outcomes[number] for number in range(len(plans))]


def outcomes_of(
    attempt: Callable[[TrialSetup, Plan], Outcome],
    setup: TrialSetup,
    plans: Sequence[Plan],
    workers: int = 0,
    option: str = "cluster.workers",
) -> Iterator[tuple[int, Outcome]]:
    """As `evaluate_plans`, for any kind of change: number and outcome of each, in the order in which they finish.

    Args:
        attempt: what tries one plan, of a module that every worker can import.
        setup, plans, workers, option: see `evaluate_plans`.
    """
    if workers:
        from yolo_dist.ray_tasks import run_tasks  # Ray takes seconds to import

        return run_tasks(attempt, setup, plans, workers, option)
    return ((number, attempt(setup, plan)) for number, plan in enumerate(plans))


def try_plan(setup: TrialSetup, plan: PrunePlan) -> Outcome:
    """What one plan would leave; the network as it is, if the plan cuts nothing.

    Raises:
        PruneError: there are no images for re-estimation.
        NonFiniteOutput: the network gives NaN or infinity.
    """
    start = setup.network
    with computing_threads(1):  # the last bits of a sum depend on how many threads share it
        network = carry_out(start, plan, compensated=setup.compensate).network
        if setup.reestimate_images and network.cfg != start.cfg:
            reestimate_batchnorm(network, training_batches(setup, setup.reestimate_images))
        return outcome_of(setup, network)


def outcome_of(setup: TrialSetup, network: Network) -> Outcome:
    """What a changed network is worth.

    Raises:
        NonFiniteOutput: it gives NaN or infinity.
    """
    evaluation = evaluate(
        network, setup.validation, setup.image_size, setup.evaluation, max_detections=setup.max_detections
    )
    assert evaluation is not None
    metrics = evaluation.metrics
    return Outcome(parameters=count_parameters(network.cfg), map=metrics.map, map50=metrics.map50)


def training_batches(setup: TrialSetup, images: int) -> Sequence[Tensor]:
    """The first training images, float [B, 3, H, W] in 0..1; none if the setup has none."""
    if setup.train is None:
        return ()
    return list(image_batches(setup.train, setup.image_size, images))
