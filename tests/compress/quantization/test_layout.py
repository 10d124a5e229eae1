"""Gradients of quantised weights lie as the weights do, in any memory format."""

import pytest
import torch
from small_networks import cfg_of, conv, head

from yolo_dist.compress.quantization import QuantizationConfig, calibrate, quantize
from yolo_dist.compress.quantization.layout import laid_out
from yolo_dist.darknet.network import Network, initialize


def test_values_and_gradients_are_those_of_the_parameter() -> None:
    parameter = torch.randn(4, 3, 2, 2).to(memory_format=torch.channels_last).requires_grad_()
    factor = torch.randn(4, 3, 2, 2)
    assert torch.equal(laid_out(parameter), parameter)
    (gradient,) = torch.autograd.grad((laid_out(parameter) * factor).sum(), parameter)
    assert torch.equal(gradient, factor)
    assert gradient.stride() == parameter.stride()


@pytest.mark.parametrize("fold", [False, True])
def test_every_gradient_of_a_quantised_network_has_the_strides_of_its_weights(fold: bool) -> None:
    network = Network(cfg_of(conv(8, 3), conv(6), *head()))
    initialize(network, seed=1)
    quantized = quantize(network, QuantizationConfig(fold_batchnorm=fold))
    images = torch.rand(2, 3, 64, 64)
    calibrate(quantized, [images], "minmax")
    quantized.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    loss = torch.stack([raw.square().mean() for raw in quantized.train()(images)]).sum()
    names, weights = zip(*quantized.named_parameters(), strict=True)
    gradients = torch.autograd.grad(loss, weights)
    pairs = zip(names, weights, gradients, strict=True)
    assert [name for name, own, gradient in pairs if own.stride() != gradient.stride()] == []
