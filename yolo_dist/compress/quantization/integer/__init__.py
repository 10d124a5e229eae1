"""Quantised networks computed with integers only."""

from yolo_dist.compress.quantization.integer.comparison import Comparison, LayerDifference, compare
from yolo_dist.compress.quantization.integer.lowering import integer_network
from yolo_dist.compress.quantization.integer.network import IntegerHead, IntegerNetwork

__all__ = ["Comparison", "IntegerHead", "IntegerNetwork", "LayerDifference", "compare", "integer_network"]
