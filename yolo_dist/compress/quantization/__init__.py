"""Quantisation: trained or calibrated, simulated exactly as integers compute."""

from yolo_dist.compress.quantization.calibration import calibrate
from yolo_dist.compress.quantization.config import QuantizationConfig, QuantizeConfig, QuantizedTrainingConfig
from yolo_dist.compress.quantization.network import QuantizedNetwork, as_float, quantize

__all__ = [
    "QuantizationConfig",
    "QuantizeConfig",
    "QuantizedNetwork",
    "QuantizedTrainingConfig",
    "as_float",
    "calibrate",
    "quantize",
]
