"""Budgets: how small a network shall become, in numbers that its cfg alone tells."""

from dataclasses import dataclass
from typing import Literal

from yolo_dist.compress.graph import ChannelGraph
from yolo_dist.compress.pruning.method import PruneConfig
from yolo_dist.darknet.cfg import Cfg
from yolo_dist.darknet.shapes import count_macs, count_parameters

Quantity = Literal["parameters", "macs"]


@dataclass(frozen=True)
class Budget:
    """At most `limit` parameters, or multiply-accumulate operations for one image."""

    quantity: Quantity
    limit: float

    @classmethod
    def of(cls, config: PruneConfig, graph: ChannelGraph) -> "Budget | None":
        """The budget that a configuration gives; targets up to 1 are shares of what the network has."""
        targets: dict[Quantity, float | None] = {"parameters": config.target_parameters, "macs": config.target_macs}
        for quantity, target in targets.items():
            if target is not None:
                limit = target * cost_of(quantity, graph.cfg) if target <= 1 else target
                return cls(quantity, limit)
        return None

    def __str__(self) -> str:
        return f"target_{self.quantity} {self.limit:,.0f}"


def cost_of(quantity: Quantity, cfg: Cfg) -> int:
    """Parameters of a network, or its multiply-accumulate operations for one image of its cfg's size."""
    return count_parameters(cfg) if quantity == "parameters" else count_macs(cfg)
