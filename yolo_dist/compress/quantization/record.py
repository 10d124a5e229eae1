"""What a quantised network has beside cfg and weights, as one file: its configuration and the ranges of activations."""

from pathlib import Path

import torch
from pydantic import ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from yolo_dist.compress.quantization.activations import ActivationQuantizer
from yolo_dist.compress.quantization.config import QuantizationConfig
from yolo_dist.compress.quantization.network import QuantizedNetwork, quantize
from yolo_dist.darknet.network import Network
from yolo_dist.errors import QuantizationError

CONFIG_KEY = "quantization"


def save_quantization(network: QuantizedNetwork, path: Path) -> None:
    """Write configuration and ranges.

    Raises:
        NotCalibrated: there are no ranges.
    """
    ranges = {name: _ranges_and_scales(quantizer) for name, quantizer in network.quantizers()}
    save_file(ranges, path, metadata={CONFIG_KEY: network.config.model_dump_json()})


def load_quantization(network: Network, path: Path, source: str) -> QuantizedNetwork:
    """A float network's quantised one, as it was saved.

    Args:
        network: with the weights that were saved beside the file.
        path: of the file.
        source: what messages call it.

    Raises:
        QuantizationError: it is no such file, or of other layers, or its scales do not follow from its ranges.
    """
    try:
        with safe_open(path, "pt") as file:
            config = QuantizationConfig.model_validate_json((file.metadata() or {}).get(CONFIG_KEY, ""))
            ranges = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, ValidationError) as error:
        raise QuantizationError(f"{source}: no record of a quantised network ({str(error).splitlines()[0]})") from None
    quantized = quantize(network, config)
    expected = dict(quantized.quantizers())
    if foreign := sorted(set(ranges) ^ set(expected)):
        raise QuantizationError(f"{source}: belongs to another cfg: {foreign[0]} is only in one of both")
    for name, quantizer in expected.items():
        quantizer.set_range(*ranges[name][:2])
        if not torch.allclose(_ranges_and_scales(quantizer), ranges[name]):
            raise QuantizationError(f"{source}: the scale of {name} does not follow from its range")
    return quantized


def _ranges_and_scales(quantizer: ActivationQuantizer) -> Tensor:
    """Ends of the range, scale and zero point, float32 [4]."""
    grid = quantizer.grid()
    return torch.stack([quantizer.low, quantizer.high, grid.scale, grid.zero_point]).cpu()
