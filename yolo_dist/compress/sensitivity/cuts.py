"""What each layer can lose of its channels: one set of them cut alone, and all of them under one threshold."""

from collections.abc import Sequence
from typing import Annotated

import numpy as np
from annotated_types import Ge, Gt, Lt

from yolo_dist.compress.graph import ChannelGraph, ChannelSet, Scope
from yolo_dist.compress.importance import Importance
from yolo_dist.compress.pruning.candidates import all_candidates, candidate_sets, require_differences
from yolo_dist.compress.pruning.method import METHODS, PruneConfig
from yolo_dist.compress.pruning.plan import PrunePlan
from yolo_dist.compress.pruning.prediction import IMAGES, PERCENTS
from yolo_dist.compress.pruning.prune import prepare
from yolo_dist.compress.pruning.ties import value_of_best
from yolo_dist.compress.pruning.trials import try_plan
from yolo_dist.compress.sensitivity.record import PlannedCurve, PlannedTrial, Question
from yolo_dist.config import Config
from yolo_dist.darknet.network import Network
from yolo_dist.errors import LayerWouldVanish


class CutsConfig(Config):
    """What is cut, and how much of it, to see what it costs."""

    percents: tuple[Annotated[float, Gt(0), Lt(1)], ...] = PERCENTS
    """Shares of the channels to cut."""
    scope: Scope = "classic"
    """`classic` leaves out what the original left out; `full` cuts wherever the channel graph allows it."""
    images: Annotated[int, Ge(1)] = IMAGES
    """Of the validation split, on which accuracy is measured."""
    reestimate_images: Annotated[int, Ge(0)] = 0
    """Training images on which batch-norm statistics are measured anew after each cut; 0 leaves them."""

    @property
    def needs_training_images(self) -> bool:
        """Whether trials need images of the training split."""
        return self.reestimate_images > 0

    def question(self, network: Network) -> Question[PrunePlan]:
        """The cuts of a network to try; the setup of their trials has these `reestimate_images`.

        Raises:
            PruneError: the network has no candidate, all γ of candidates are equal, or weights are not finite.
        """
        graph, importance = prepare(network)
        method, together = plan_together(graph, importance, self.scope, self.percents)
        return Question(
            unit="percent",
            method=method,
            attempt=try_plan,
            nothing=PrunePlan.from_masks({}, method="sensitivity", percent=0, threshold=None),
            together=together,
            sets=[plan_set(graph, importance, one, self.percents) for one in candidate_sets(graph, self.scope)],
            settings={"scope": self.scope},
        )


def plan_set(
    graph: ChannelGraph, importance: Importance, one: ChannelSet, percents: Sequence[float]
) -> PlannedCurve[PrunePlan]:
    """Cuts of one set alone: its channels of smallest |γ| go (the largest of tied ones counts), but one stays.

    Equal |γ| go in the order of the channels.
    """
    removable = one.channels[~graph.frozen[one.channels]]
    weakest = removable[np.argsort(value_of_best(graph, importance)[removable], kind="stable")]

    def cut(percent: float) -> PlannedTrial[PrunePlan]:
        gone = weakest[: min(int(len(one.channels) * percent), len(one.channels) - 1)]
        kept = np.ones(len(graph.frozen), bool)
        kept[gone] = False
        plan = PrunePlan.from_channels(
            graph, kept, one.convolutions, method="sensitivity", percent=percent, threshold=None
        )
        return PlannedTrial(percent, len(gone), plan)

    return PlannedCurve(one.convolutions, len(one.channels), tuple(cut(percent) for percent in sorted(set(percents))))


def plan_together(
    graph: ChannelGraph, importance: Importance, scope: Scope, percents: Sequence[float]
) -> tuple[str, PlannedCurve[PrunePlan]]:
    """Cuts by one threshold over all convolutions of the scope, and the method that plans them.

    It is `normal`, and `shortcut` where shortcuts tie channels.

    Raises:
        PruneError: the network has no candidate, or all of them are equally important.
    """
    name = "shortcut" if graph.tied() else "normal"
    candidates = all_candidates(graph, PruneConfig(method=name, scope=scope))
    require_differences(importance, candidates)

    def cut(percent: float) -> PlannedTrial[PrunePlan]:
        config = PruneConfig(method=name, scope=scope, percent=percent)
        try:
            plan = METHODS[name](graph, importance, config)
        except LayerWouldVanish as error:
            return PlannedTrial(percent, 0, None, str(error))
        return PlannedTrial(percent, int((~graph.kept_channels(plan.masks())).sum()), plan)

    channels = len(np.unique(np.concatenate([graph.outputs[layer] for layer in candidates])))
    return name, PlannedCurve((), channels, tuple(cut(percent) for percent in sorted(set(percents))))
