"""Sparse training beside the loop: the penalty on a stage's candidates, and when they are sparse enough."""

from collections.abc import Collection

from torch import nn

from yolo_dist.compress.graph import ChannelGraph
from yolo_dist.compress.sparsity import (
    Gauge,
    SparsityConfig,
    SparsityPenalty,
    absolute_gammas,
    batch_norm,
    decay_curve,
    measure_sparsity,
    resolve_factor,
    sparsity_candidates,
    travel,
)
from yolo_dist.darknet.network import Network
from yolo_dist.errors import ConfigError


class SparseTraining:
    """Drives the γ of a network's candidates towards zero.

    Args:
        network: in training.
        config: which γ, and how hard.
        learning_rates: of every optimizer step of the stage.
        momentum: of its optimizer.
        frozen: layers whose γ stay.

    Attributes:
        candidates: convolutions whose γ shrink.
        gamma_travel: roughly how far each γ moves over the stage.

    Raises:
        ConfigError: the network has nothing to make sparse, all of it is frozen, or no step has a rate.
    """

    def __init__(
        self,
        network: Network,
        config: SparsityConfig,
        learning_rates: list[float],
        momentum: float,
        frozen: Collection[int] = (),
    ) -> None:
        self.config = config
        in_scope = sparsity_candidates(ChannelGraph.from_cfg(network.cfg), config.scope)
        if not in_scope:
            raise ConfigError(
                "sparsity",
                [f"no convolution of this network is in scope {config.scope}; take another scope, or leave it out"],
            )
        self.candidates = [layer for layer in in_scope if layer not in frozen]
        if not self.candidates:
            raise ConfigError("sparsity", [f"all convolutions in scope {config.scope} are frozen; freeze fewer layers"])
        factor = resolve_factor(config, learning_rates, momentum)
        self.gamma_travel = travel(factor, learning_rates, momentum, config.decay)
        gammas: list[nn.Parameter] = [batch_norm(network, layer).weight for layer in self.candidates]
        self._penalty = SparsityPenalty(gammas, factor * decay_curve(config.decay, len(learning_rates)))

    def before_step(self, step: int) -> None:
        """Add the penalty of an optimizer step to the gradients."""
        self._penalty.add_to_gradients(step)

    def gauge(self, average: Network) -> Gauge:
        """How sparse the averaged network is."""
        return measure_sparsity(absolute_gammas(average, self.candidates), self.config.scope)

    def is_ready(self, average: Network) -> bool:
        """Whether it is as sparse as the stage was asked for; never where it was asked for nothing."""
        asked = self.config.stop_when_ready
        return asked is not None and self.gauge(average).prunable >= asked
