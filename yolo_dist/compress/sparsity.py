"""Sparse training: an L1 penalty on batch-norm scales γ, and the gauge that tells whether it works.

Liu et al. 2017, "Learning Efficient Convolutional Networks through Network Slimming".
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Annotated, Any, Literal

import numpy as np
import torch
from annotated_types import Gt, Lt
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import BatchNorm2d

from yolo_dist.compress.graph import ChannelGraph, plain_convolutions, prunable_convolutions
from yolo_dist.compress.residual import residual_blocks
from yolo_dist.config import Config
from yolo_dist.darknet.layers import Convolution
from yolo_dist.darknet.network import Network
from yolo_dist.errors import ConfigError

NEGLIGIBLE = 1e-2
"""|γ| under which a channel hardly contributes."""
PRUNABLE_SHARE = 0.01
"""Share of the summed |γ| that may be cut before a network counts as not ready."""
READY = 0.2
"""Share of prunable channels from which sparse training has visibly worked."""
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
HISTOGRAM_EDGES = np.concatenate(([0.0], np.logspace(-4, 1, 41)))


SparsityScope = Literal["normal", "shortcut", "full", "layer"]


class SparsityConfig(Config):
    """Which γ are driven towards zero, and how hard."""

    scope: SparsityScope = "normal"
    """Candidate convolutions, by what is to be cut: `normal` are those that no shortcut ties, `shortcut` tied ones
    too, `full` all that pruning in scope full cuts, `layer` those that feed the shortcuts of residual blocks."""
    factor: Annotated[float, Gt(0)] | Literal["auto"] = "auto"
    """Weight s of s·Σ|γ|; `auto` derives it from the stage's learning rates and `budget`."""
    budget: Annotated[float, Gt(0)] = 1.7
    """How far `auto` lets a γ travel in total; they start near 1."""
    decay: Literal["constant", "linear", "step"] = "constant"
    """How the factor changes over the stage: linear to zero, or a tenth from 60 % and a hundredth from 90 % on."""
    stop_when_ready: Annotated[float, Gt(0), Lt(1)] | None = None
    """Share of prunable channels (blocks in scope `layer`) at which the stage ends early; by default it never does."""


def sparsity_candidates(graph: ChannelGraph, scope: SparsityScope = "normal") -> list[int]:
    """Convolutions whose γ sparse training shrinks: the candidates of the methods in classic scope, or in full."""
    match scope:
        case "normal":
            return plain_convolutions(graph, "classic")
        case "shortcut":
            return prunable_convolutions(graph, "classic")
        case "full":
            return prunable_convolutions(graph, "full")
        case "layer":
            return sorted(block.feeding for block in residual_blocks(graph))


def absolute_gammas(network: Network, layers: Sequence[int]) -> dict[int, NDArray[np.float32]]:
    """|γ| of the batch norms of some convolutions, float32 [C] each."""
    return {layer: batch_norm(network, layer).weight.detach().abs().cpu().numpy() for layer in layers}


def batch_norm(network: Network, layer: int) -> BatchNorm2d:
    """The batch normalisation of a convolution that has one."""
    module = network.layers[layer]
    assert isinstance(module, Convolution)
    assert module.norm is not None
    return module.norm


def travel(factor: float, learning_rates: Sequence[float], momentum: float, decay: str) -> float:
    """B = Σ lr_t·s_t / (1 − m): roughly how far a γ moves towards zero over a stage."""
    rates = np.asarray(learning_rates)
    return float(factor * (rates * decay_curve(decay, len(rates))).sum() / (1 - momentum))


def resolve_factor(config: SparsityConfig, learning_rates: Sequence[float], momentum: float) -> float:
    """The factor s of a stage; `auto` is the one with which a γ travels `budget`.

    Raises:
        ConfigError: `auto`, and the rate is always 0: the stage is no longer than the first step of its warm-up.
    """
    if config.factor != "auto":
        return config.factor
    reach = travel(1.0, learning_rates, momentum, config.decay)
    if reach == 0:
        raise ConfigError(
            "sparsity",
            [
                "factor: auto has no learning rate to go by, as the stage is but the first step of its warm-up; train "
                "longer, or set optimizer.warmup_share: 0"
            ],
        )
    return config.budget / reach


def decay_curve(decay: str, steps: int) -> NDArray[np.float64]:
    """What the factor is multiplied by at each optimizer step, float64 [steps]."""
    progress = np.arange(steps) / max(steps, 1)
    if decay == "linear":
        return 1 - progress
    if decay == "step":
        return np.where(progress < 0.6, 1.0, np.where(progress < 0.9, 0.1, 0.01))
    return np.ones(steps)


class SparsityPenalty:
    """Adds the subgradient s·sign(γ) to the gradients, once an optimizer step.

    It must be applied to unscaled, averaged gradients right before the step: then its effect does not depend on
    gradient accumulation, mixed precision or the number of workers.
    """

    def __init__(self, gammas: Sequence[Tensor], factors: NDArray[np.float64]) -> None:
        self.gammas = list(gammas)
        self.factors = factors

    def add_to_gradients(self, step: int) -> None:
        """Add the penalty of optimizer step `step` to every candidate's `.grad`."""
        reached = [(gamma.grad, gamma.detach()) for gamma in self.gammas if gamma.grad is not None]
        signs = torch._foreach_sign([gamma for _, gamma in reached])
        torch._foreach_add_([gradient for gradient, _ in reached], signs, alpha=float(self.factors[step]))


@dataclass(frozen=True)
class Gauge:
    """How sparse a network is.

    Attributes:
        quantiles: quantile → |γ|.
        below: share of |γ| under 1e-2 and 1e-3.
        prunable: share of the channels that could go with under 1 % of the summed |γ|; of the blocks where those are
            to go, each with its mean |γ|.
        verdict: `not yet`, `ready` (to `prunable`), or `overdone` (a whole layer is negligible, all where blocks go).
        histogram: |γ| counts over `HISTOGRAM_EDGES`.
    """

    quantiles: dict[str, float]
    below: dict[str, float]
    prunable: float
    verdict: str
    histogram: list[int]

    def as_json(self) -> dict[str, Any]:
        """A JSON object with the histogram's edges."""
        edges = [round(float(edge), 6) for edge in HISTOGRAM_EDGES]
        return asdict(self) | {"histogram": {"edges": edges, "counts": self.histogram}}


def describe_gauge(gauge: Mapping[str, Any]) -> str:
    """A gauge's JSON object in a few words: not yet, ready to P %, overdone."""
    verdict = f"ready to {gauge['prunable']:.0%}" if gauge["verdict"] == "ready" else gauge["verdict"]
    return f"γ<0.01: {gauge['below']['1e-2']:.0%}, {verdict}"


def measure_sparsity(gammas: dict[int, NDArray[np.float32]], scope: SparsityScope = "normal") -> Gauge:
    """The gauge over the candidates' |γ| of each layer."""
    values = np.concatenate(list(gammas.values())).astype(np.float64)
    weights = np.array([layer.mean(dtype=np.float64) for layer in gammas.values()]) if scope == "layer" else values
    prunable = prunable_share(weights)
    negligible = [bool(layer.max() < NEGLIGIBLE) for layer in gammas.values()]
    overdone = all(negligible) if scope == "layer" else any(negligible)
    return Gauge(
        quantiles={f"{q:g}": float(np.quantile(values, q)) for q in QUANTILES},
        below={"1e-2": float((values < 1e-2).mean()), "1e-3": float((values < 1e-3).mean())},
        prunable=prunable,
        verdict="overdone" if overdone else "ready" if prunable >= READY else "not yet",
        histogram=np.histogram(values.clip(max=HISTOGRAM_EDGES[-1]), HISTOGRAM_EDGES)[0].tolist(),
    )


def prunable_share(gammas: NDArray[np.floating[Any]]) -> float:
    """Largest share of channels whose summed |γ| stays under 1 % of the total, smallest first."""
    ordered = np.sort(np.abs(gammas))
    below = np.cumsum(ordered) < PRUNABLE_SHARE * ordered.sum()
    return float(below.mean())
