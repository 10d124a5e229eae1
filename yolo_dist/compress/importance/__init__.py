"""Importance: what a channel is worth, apart from the method that decides which channels go.

A new measure is one function registered by `@measure("name")`; import its file here.
"""

from yolo_dist.compress.importance import filters, gamma, random, taylor
from yolo_dist.compress.importance.measure import CALIBRATED, MEASURES, RELATIVE, Basis, BatchLoss, Importance

__all__ = [
    "CALIBRATED",
    "MEASURES",
    "RELATIVE",
    "Basis",
    "BatchLoss",
    "Importance",
    "filters",
    "gamma",
    "random",
    "taylor",
]
