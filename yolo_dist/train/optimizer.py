"""The optimizer and its schedule: SGD with Nesterov momentum, warm-up, cosine decay."""

import math
from typing import Annotated

import torch
from annotated_types import Ge, Gt, Le, Lt
from torch import Tensor, nn
from torch.optim import SGD

from yolo_dist.config import Config

BIASES, WEIGHTS, SCALES = range(3)
GROUPS = ("biases", "weights", "scales")
"""Parameter groups: biases, convolution weights, batch-norm scales."""


class OptimizerConfig(Config):
    """SGD and its schedule; the defaults are the original's."""

    learning_rate: Annotated[float, Gt(0)] = 0.01
    """Rate after warm-up, for a nominal batch."""
    final_fraction: Annotated[float, Gt(0), Le(1)] = 0.05
    """Where the cosine ends, as a fraction of `learning_rate`."""
    momentum: Annotated[float, Ge(0), Lt(1)] = 0.937
    """Nesterov momentum."""
    weight_decay: Annotated[float, Ge(0)] = 5e-4
    """Decay of convolution weights; biases and batch norms have none."""
    warmup_epochs: Annotated[float, Ge(0)] = 3
    """Length of the warm-up in epochs …"""
    warmup_steps: Annotated[int, Ge(0)] = 500
    """… or in optimizer steps, whichever is longer …"""
    warmup_share: Annotated[float, Ge(0), Le(1)] = 0.1
    """… but never more than this share of the stage, so that a short run does not spend itself in warm-up."""
    warmup_bias_rate: Annotated[float, Ge(0)] = 0.1
    """Where the biases' rate starts with new heads; all others start from 0, and so do these with trained heads."""


def build_optimizer(network: nn.Module, config: OptimizerConfig) -> SGD:
    """SGD over three groups: biases, convolution weights (with decay), batch-norm scales."""
    groups: list[list[nn.Parameter]] = [[], [], []]
    for module in network.modules():
        for name, parameter in module.named_parameters(recurse=False):
            norm = isinstance(module, nn.BatchNorm2d)
            groups[BIASES if name == "bias" else SCALES if norm else WEIGHTS].append(parameter)
    return SGD(
        [
            {"params": parameters, "weight_decay": config.weight_decay if group == WEIGHTS else 0.0}
            for group, parameters in enumerate(groups)
        ],
        lr=config.learning_rate,
        momentum=config.momentum,
        nesterov=config.momentum > 0,
        fused=True,
    )


def rates_of(optimizer: SGD) -> dict[str, float]:
    """The rate that each parameter group has now, by the group's name."""
    return {name: group["lr"] for name, group in zip(GROUPS, optimizer.param_groups, strict=True)}


def momentum_of(optimizer: SGD) -> dict[str, Tensor]:
    """Momentum of every parameter that has some yet, by its number; rates are the schedule's."""
    state = optimizer.state_dict()["state"]
    return {str(number): own["momentum_buffer"] for number, own in state.items() if own["momentum_buffer"] is not None}


def restore_momentum(optimizer: SGD, momentum: dict[str, Tensor]) -> None:
    """Give the parameters the momentum that `momentum_of` told."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    for number, value in momentum.items():
        parameter = parameters[int(number)]
        # laid out in memory as its parameter: the fused step goes through both side by side
        optimizer.state[parameter]["momentum_buffer"] = torch.empty_like(parameter.detach()).copy_(value)


class Schedule:
    """Learning rates of a stage as a pure function of the optimizer step.

    Args:
        config: rates and warm-up.
        steps: optimizer steps of the whole stage.
        epochs: epochs of the whole stage.
        new: whether the network's heads were never trained. The head starts of new ones (fast biases, objectness that
            does not yet follow the boxes) would undo what trained ones have learnt.
    """

    def __init__(self, config: OptimizerConfig, steps: int, epochs: int, new: bool = True) -> None:
        self.config = config
        self.new = new
        self.steps = steps
        wanted = max(config.warmup_epochs * steps / max(epochs, 1), config.warmup_steps)
        self.warmup = int(min(wanted, config.warmup_share * steps))

    def rate(self, step: int) -> float:
        """Rate of convolution weights and batch-norm scales at optimizer step `step`."""
        return self._cosine(step) * self._warmed(step)

    def bias_rate(self, step: int) -> float:
        """Rate of the biases: falls from `warmup_bias_rate` to the others' rate during warm-up."""
        warmed = self._warmed(step)
        start = self.config.warmup_bias_rate if self.new else 0.0
        return start * (1 - warmed) + self._cosine(step) * warmed

    def iou_share(self, step: int) -> float:
        """How much of the objectness target is the box's IoU: 0 → 1 over warm-up; all of it with trained heads."""
        return self._warmed(step) if self.new else 1.0

    def rates(self) -> list[float]:
        """`rate` of every optimizer step of the stage."""
        return [self.rate(step) for step in range(self.steps)]

    def apply(self, optimizer: SGD, step: int) -> None:
        """Set the rates of optimizer step `step`."""
        for group, parameters in enumerate(optimizer.param_groups):
            parameters["lr"] = self.bias_rate(step) if group == BIASES else self.rate(step)

    def _warmed(self, step: int) -> float:
        return min(1.0, step / self.warmup) if self.warmup else 1.0

    def _cosine(self, step: int) -> float:
        low = self.config.final_fraction
        curve = (1 + math.cos(math.pi * step / max(self.steps, 1))) / 2
        return self.config.learning_rate * (low + (1 - low) * curve)
