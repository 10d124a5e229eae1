"""Pruning: a method plans which channels stay, surgery carries it out, a proof compares before and after.

A new method is one file with a function registered by `@method("name")`; import it here.
"""

from yolo_dist.compress.pruning import (
    eagle_eye,
    layer,
    layer_channel,
    layer_channel_regular,
    layerwise,
    normal,
    regular,
    shortcut,
    slim,
)
from yolo_dist.compress.pruning.method import METHODS, PruneConfig
from yolo_dist.compress.pruning.plan import PrunePlan
from yolo_dist.compress.pruning.proof import Proof
from yolo_dist.compress.pruning.prune import Pruned, make_plan, prune
from yolo_dist.compress.pruning.readiness import check_ready

__all__ = [
    "METHODS",
    "Proof",
    "PruneConfig",
    "PrunePlan",
    "Pruned",
    "check_ready",
    "eagle_eye",
    "layer",
    "layer_channel",
    "layer_channel_regular",
    "layerwise",
    "make_plan",
    "normal",
    "prune",
    "regular",
    "shortcut",
    "slim",
]
