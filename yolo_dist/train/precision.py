"""Numbers of half the width in the forward pass, where a device computes faster with them.

bfloat16 reaches as far as float32, and needs nothing else. float16 does not: small gradients would become 0 in it. So
the loss is multiplied by a scale first, which halves whenever a gradient became infinite (that optimizer step is left
out), and doubles after many steps without (Micikevicius et al. 2018, Mixed Precision Training, §3.2).
"""

from typing import Any, Literal

import torch
from torch import Tensor
from torch.optim import SGD

Autocast = bool | Literal["auto", "bfloat16", "float16"]

BFLOAT16_INSTRUCTIONS = ("avx512_bf16", "amx_bf16", "bf16")
"""On x86, and the last on ARM."""
FLOAT16_SINCE = (7, 0)
"""Compute capability of the first GPUs that are faster in float16: Volta."""
NAMES = {torch.bfloat16: "bfloat16", torch.float16: "float16", None: "float32"}


class Precision:
    """How a training computes on its device.

    Args:
        autocast: what the stage asks for.
        device: where the network is.

    Attributes:
        half: type of the convolutions' numbers in the forward pass; None for float32.
    """

    def __init__(self, autocast: Autocast, device: torch.device) -> None:
        self.device = device
        self.half = _half(autocast, device)
        self._scaler = torch.amp.GradScaler(device.type, enabled=self.half is torch.float16)

    @property
    def name(self) -> str:
        """As people write it: bfloat16, float16 or float32."""
        return NAMES[self.half]

    def forward(self) -> torch.autocast:
        """Around a forward pass."""
        return torch.autocast(self.device.type, self.half or torch.bfloat16, enabled=self.half is not None)

    def backward(self, loss: Tensor) -> None:
        """Add the gradients of a loss, a float32 scalar, to those of its parameters: scaled, until `unscale`."""
        self._scaler.scale(loss).backward()

    def unscale(self, optimizer: SGD) -> None:
        """Make gradients what they are without the scale; before anything is added to them, and before `step`."""
        if self._scaler.is_enabled():
            self._scaler.unscale_(optimizer)

    def step(self, optimizer: SGD) -> None:
        """A step of the optimizer, which leaves all as it is if a gradient is infinite; no wait for the device."""
        if self._scaler.is_enabled():
            _begin_momentum(optimizer)
        self._scaler.step(optimizer)
        self._scaler.update()

    def state(self) -> dict[str, Any]:
        """What an interrupted training needs to go on: plain numbers, none without a scale."""
        return self._scaler.state_dict()

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from what `state` gave."""
        if state and self._scaler.is_enabled():
            self._scaler.load_state_dict(state)


def bfloat16_is_fast(device: torch.device) -> bool:
    """Whether a device computes in bfloat16 with instructions of its own."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device.type != "cpu":
        return False
    capabilities: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()  # older torch cannot tell
    return any(capabilities.get(name, False) for name in BFLOAT16_INSTRUCTIONS)


def _half(autocast: Autocast, device: torch.device) -> torch.dtype | None:
    if autocast is False:
        return None
    if isinstance(autocast, str) and autocast != "auto":
        return torch.float16 if autocast == "float16" else torch.bfloat16
    if bfloat16_is_fast(device):
        return torch.bfloat16
    if device.type == "cuda" and torch.cuda.get_device_capability(device) >= FLOAT16_SINCE:
        return torch.float16
    return torch.bfloat16 if autocast is True else None


def _begin_momentum(optimizer: SGD) -> None:
    """Momentum of 0 before the first step: the fused step makes it of whatever lies in memory, and leaves it so where
    a gradient is infinite, as it is likely to be in that step."""
    for group in optimizer.param_groups:
        for parameter in group["params"] if group["momentum"] else ():
            if parameter.grad is not None and parameter not in optimizer.state:
                optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter.grad)
