"""How far a student's softened distributions are from its teacher's (Hinton et al. 2015, §2)."""

import torch.nn.functional as F
from torch import Tensor


def softened_divergence(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """T² Σ KL(softmax(teacher / T) ‖ softmax(student / T)) over rows of logits, float [N, K] each."""
    ours, theirs = (F.log_softmax(logits / temperature, dim=1) for logits in (student, teacher))
    return F.kl_div(ours, theirs, reduction="sum", log_target=True) * temperature**2
