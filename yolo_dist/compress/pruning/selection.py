"""From what a user asks for to one plan: at a percent, towards a target, or the best of several.

Targets are met by bisection over thousandths of percent: of all that meet a size or a latency the mildest cut is
taken, of all that keep the accuracy the hardest. A harder cut can leave a larger network where channels and blocks go
together, for other blocks are then the weakest, and where a layer that would be emptied keeps more than a multiple:
there hundredths are tried from the mildest on.
"""

from bisect import bisect_left
from collections.abc import Callable, Sequence

from yolo_dist.compress.graph import ChannelGraph
from yolo_dist.compress.pruning.budget import Budget, cost_of
from yolo_dist.compress.pruning.carry_out import carry_out, planned_cfg
from yolo_dist.compress.pruning.method import PruneConfig
from yolo_dist.compress.pruning.plan import PrunePlan
from yolo_dist.compress.pruning.ties import FEWEST
from yolo_dist.compress.pruning.trials import Outcome
from yolo_dist.darknet.network import Network
from yolo_dist.errors import LayerWouldVanish, PruneError
from yolo_dist.evaluate.latency import network_latency_ms

THOUSANDTHS = range(1000)
NEVER_EMPTY = ("regular", "slim")

Planner = Callable[[PruneConfig], PrunePlan]
"""What a method makes of a configuration; graph and importance are fixed."""
Accuracy = Callable[[Sequence[PrunePlan]], Sequence[Outcome]]
"""What each plan leaves, measured on the validation split; see `evaluate_plans`."""


def select_plan(
    network: Network,
    planner: Planner,
    config: PruneConfig,
    image_size: tuple[int, int],
    accuracy: Accuracy | None = None,
) -> PrunePlan:
    """The plan that a configuration asks for.

    Args:
        network: to be cut.
        planner: its method.
        config: the request.
        image_size: (width, height) of the input in pixels, for MACs and latency.
        accuracy: measures plans, for `max_map_drop` and the candidates of eagle-eye.

    Raises:
        PruneError: a target cannot be met, names what can; no `accuracy` where one is needed.
    """
    if config.draws_candidates:
        return _best_of(planner, config, accuracy)
    graph = ChannelGraph.from_cfg(network.cfg.with_size(image_size))
    budget = Budget.of(config, graph)
    if budget is not None:

        def size(plan: PrunePlan) -> float:
            return cost_of(budget.quantity, planned_cfg(graph, plan))

        return _mildest(planner, config, size, budget.limit, str(budget))
    if (limit := config.target_latency_ms) is not None:

        def latency(plan: PrunePlan) -> float:
            return network_latency_ms(carry_out(network, plan).network, image_size)

        return _mildest(planner, config, latency, limit, f"target_latency_ms {limit:g}")
    if config.max_map_drop is not None:
        return _hardest(planner, config, config.max_map_drop, _required(accuracy, "max_map_drop"))
    return planner(config)


def _mildest(
    planner: Planner, config: PruneConfig, measure: Callable[[PrunePlan], float], limit: float, target: str
) -> PrunePlan:
    """The plan of the smallest percent that measures no more than the limit."""

    def met(thousandths: int) -> bool:
        try:
            return measure(planner(_at(config, thousandths))) <= limit
        except LayerWouldVanish:
            return True

    tried = THOUSANDTHS
    if _more_may_stay(config):
        first = next((n for n in range(0, len(THOUSANDTHS), 10) if met(n)), len(THOUSANDTHS))
        tried = range(max(0, first - 9), first)
    found = tried.start + bisect_left(tried, True, key=met)
    try:
        if found < len(THOUSANDTHS):
            return planner(_at(config, found))
    except LayerWouldVanish:
        pass
    hardest = planner(_at(config, found - 1))
    why, instead = "", ["a smaller model"]
    if config.scope == "classic":
        instead.insert(0, "--scope full")
    if config.method not in NEVER_EMPTY:
        instead.insert(0, f"{' or '.join(NEVER_EMPTY)}, which never empty a layer")
    if config.share_of_blocks:
        why = ", as no percent removes the last residual block"
        instead.insert(0, f"shortcuts {len(hardest.blocks) + 1}")
    raise PruneError(
        f"method {config.method}: {target} cannot be met; the largest percent that works is {hardest.percent:g}, with "
        f"{measure(hardest):,.6g}{why}; try {', or '.join(instead)}"
    )


def _more_may_stay(config: PruneConfig) -> bool:
    """Whether a larger percent can leave more: where blocks go by it too, and where a layer that would be emptied keeps
    more than a multiple."""
    emptied_keeps_more = config.method == "regular" and (config.round_to or FEWEST) < FEWEST
    return emptied_keeps_more or (config.share_of_blocks and config.cuts_channels)


def _hardest(planner: Planner, config: PruneConfig, drop: float, accuracy: Accuracy) -> PrunePlan:
    """The plan of the largest percent at which mAP50 is no more than `drop` below that of the uncut network."""
    uncut = PrunePlan.from_masks({}, method=config.method, percent=0, threshold=None)  # slim cuts even at percent 0
    whole = accuracy([uncut])[0].map50
    kept: list[float] = []

    def lost(thousandths: int) -> bool:
        try:
            plan = planner(_at(config, thousandths))
        except LayerWouldVanish:
            return True
        kept.append(accuracy([plan])[0].map50)
        return kept[-1] < whole - drop

    first = bisect_left(THOUSANDTHS, True, key=lost)
    if not first:
        raise PruneError(
            f"method {config.method}: max_map_drop {drop:g} cannot be met; the smallest drop measured, down to percent "
            f"0, is {whole - max(kept):.3g}; allow that, cut fewer shortcuts or another way, or train sparser"
        )
    return planner(_at(config, first - 1))


def _best_of(planner: Planner, config: PruneConfig, accuracy: Accuracy | None) -> PrunePlan:
    seeds = range(config.seed, config.seed + config.candidates)
    plans = [planner(config.model_copy(update={"seed": seed})) for seed in seeds]
    if len(plans) == 1:
        return plans[0]
    outcomes = _required(accuracy, f"method {config.method}")(plans)
    return plans[max(range(len(plans)), key=lambda number: outcomes[number].map)]


def _at(config: PruneConfig, thousandths: int) -> PruneConfig:
    return config.model_copy(update={"percent": thousandths / len(THOUSANDTHS)})


def _required(accuracy: Accuracy | None, what: str) -> Accuracy:
    if accuracy is None:
        raise PruneError(f"{what} needs a validation split to measure on; give --shards")
    return accuracy
