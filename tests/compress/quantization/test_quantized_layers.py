"""Quantised layers against torch's own operations on weights that are quantised by hand."""

from itertools import pairwise
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from calibrated import signal_to_noise
from small_networks import conv, depthwise
from torch import Tensor, nn

from yolo_dist.compress.quantization import QuantizationConfig
from yolo_dist.compress.quantization.activations import ActivationQuantizer
from yolo_dist.compress.quantization.layers import (
    QuantizedAddition,
    QuantizedAveragePooling,
    QuantizedConcatenation,
    QuantizedConvolution,
    QuantizedSqueezeExcitation,
)
from yolo_dist.compress.quantization.schemes import SCHEMES, WeightRule
from yolo_dist.darknet.cfg import Avgpool, Convolutional, Depthwise, Route, Shortcut, SqueezeExcite
from yolo_dist.darknet.layers import Convolution, build_layer

CHANNELS = 8
LINEAR: dict[str, Any] = {"activation": "linear"}
SHAPES: dict[str, Convolutional | Depthwise] = {
    "full": conv(6, 3, **LINEAR),
    "strided": conv(6, 3, 2, **LINEAR),
    "grouped": conv(6, 3, groups=2, **LINEAR),
    "depthwise": depthwise(CHANNELS, 3, **LINEAR),
    "with a bias": conv(6, 3, batch_normalize=0, **LINEAR),
}
every_shape = pytest.mark.parametrize("shape", list(SHAPES))
every_form = pytest.mark.parametrize(
    "options",
    [
        pytest.param({}, id="google"),
        pytest.param({"symmetric": False}, id="asymmetric"),
        pytest.param({"per_channel": True, "symmetric": "weights"}, id="per channel"),
        pytest.param({"per_channel": True, "symmetric": False}, id="asymmetric per channel"),
        pytest.param({"power_of_two": True, "weight_bits": 6}, id="power of two"),
        pytest.param({"scheme": "dorefa", "weight_bits": 4}, id="dorefa"),
    ],
)


def linear_layer(layer: Convolutional | Depthwise, **options: Any) -> QuantizedConvolution:
    """A layer whose output is not put on a grid, in evaluation, with numbers that training would have left."""
    torch.manual_seed(0)
    config = QuantizationConfig(**options)
    module = QuantizedConvolution(layer, CHANNELS, config, config.weight_bits, feeds_head=True)
    if module.norm is not None:
        nn.init.uniform_(module.norm.weight, -1.5, 1.5)
        nn.init.uniform_(module.norm.bias, -1, 1)
        assert module.norm.running_mean is not None
        assert module.norm.running_var is not None
        nn.init.uniform_(module.norm.running_mean, -0.5, 0.5)
        nn.init.uniform_(module.norm.running_var, 0.1, 2)
    return module.eval()


def features(count: int = 4, channels: int = CHANNELS, seed: int = 1) -> Tensor:
    return torch.randn(count, channels, 9, 7, generator=torch.Generator().manual_seed(seed))


def quantized(weight: Tensor, config: QuantizationConfig) -> Tensor:
    rule = WeightRule(config.weight_bits, config.symmetric is not False, config.per_channel, config.power_of_two)
    return SCHEMES[config.scheme].weights(weight, rule).values


def convolve(module: QuantizedConvolution, values: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    own = module.conv
    assert isinstance(own.padding, tuple)
    return F.conv2d(values, weight, bias, own.stride, own.padding, own.dilation, own.groups)


def statistics(module: QuantizedConvolution) -> tuple[nn.BatchNorm2d, Tensor, Tensor]:
    norm = module.norm
    assert norm is not None
    assert norm.running_mean is not None
    assert norm.running_var is not None
    return norm, norm.running_mean.clone(), (norm.running_var + norm.eps).sqrt()


def a_channel(values: Tensor) -> Tensor:
    return values.view(-1, 1, 1, 1)


@every_form
@every_shape
def test_without_folding_the_weights_alone_are_quantised(shape: str, options: dict[str, Any]) -> None:
    module = linear_layer(SHAPES[shape], **options)
    expected = convolve(module, features(), quantized(module.conv.weight, module.config), module.conv.bias)
    if module.norm is not None:
        expected = module.norm(expected)
    torch.testing.assert_close(module(features()), expected)


@every_form
@pytest.mark.parametrize("shape", sorted(set(SHAPES) - {"with a bias"}))
def test_a_folded_layer_in_evaluation_is_one_convolution(shape: str, options: dict[str, Any]) -> None:
    """With weights Q(w·γ/σ) and bias β − γμ/σ (Jacob et al. 2018, eq. 14)."""
    module = linear_layer(SHAPES[shape], fold_batchnorm=True, **options)
    norm, mean, deviation = statistics(module)
    assert (norm.weight < 0).any()
    factor = (norm.weight / deviation).detach()
    weight = quantized(module.conv.weight * a_channel(factor), module.config)
    expected = convolve(module, features(), weight, norm.bias - mean * factor)
    torch.testing.assert_close(module(features()), expected, rtol=1e-4, atol=1e-5)


def test_in_training_a_folded_layer_normalises_by_the_batch() -> None:
    """What the quantised filters give is brought from σ to σ_B and from μ to μ_B, as in the two-convolution form."""
    module = linear_layer(SHAPES["full"], fold_batchnorm=True).train()
    norm, _, deviation = statistics(module)
    factor = (norm.weight / deviation).detach()
    folded = quantized(module.conv.weight * a_channel(factor), module.config)
    unfolded = convolve(module, features(), folded / a_channel(factor))
    mean, variance = unfolded.mean((0, 2, 3)), unfolded.var((0, 2, 3), unbiased=False)
    own = (variance + norm.eps).sqrt()
    scaled = convolve(module, features(), folded) * (deviation / own)[:, None, None]
    expected = scaled + (norm.bias - norm.weight * mean / own)[:, None, None]
    torch.testing.assert_close(module(features()), expected, rtol=1e-4, atol=1e-4)


def test_its_statistics_are_those_of_a_float_convolution_but_for_the_quantisation() -> None:
    """Krishnamoorthi 2018, §3.2.2, takes them from a second convolution; at many bits both are one."""
    module = linear_layer(SHAPES["full"], fold_batchnorm=True, weight_bits=14, bias_bits=32).train()
    norm, _, deviation = statistics(module)
    plain = convolve(module, features(), module.conv.weight)
    mean, own = plain.mean((0, 2, 3)), (plain.var((0, 2, 3), unbiased=False) + norm.eps).sqrt()
    folded = quantized(module.conv.weight * a_channel(norm.weight / deviation), module.config)
    scaled = convolve(module, features(), folded) * (deviation / own)[:, None, None]
    two_convolutions = scaled + (norm.bias - norm.weight * mean / own)[:, None, None]
    assert signal_to_noise(two_convolutions, module(features())) > 60


def test_running_statistics_follow_the_quantised_convolution_in_training_only() -> None:
    module = linear_layer(SHAPES["full"], weight_bits=3)
    before = statistics(module)[1]
    module(features())
    assert torch.equal(statistics(module)[1], before)
    module.train()(features())
    mean = convolve(module, features(), quantized(module.conv.weight, module.config)).mean((0, 2, 3))
    torch.testing.assert_close(statistics(module)[1], before.lerp(mean, 0.03))


@pytest.mark.parametrize("fold", [False, True])
def test_gradients_reach_weights_and_gamma_as_if_nothing_were_rounded(fold: bool) -> None:
    """Straight through: at many bits they are those of the float layer."""
    module = linear_layer(SHAPES["full"], fold_batchnorm=fold, weight_bits=16).train()
    plain = Convolution(SHAPES["full"], CHANNELS)
    plain.load_state_dict(module.state_dict())
    factors = features(channels=6, seed=3)
    for one in (module, plain.train()):
        (one(features()) * factors).sum().backward()
    for (name, own), (_, expected) in zip(module.named_parameters(), plain.named_parameters(), strict=True):
        assert own.grad is not None
        assert expected.grad is not None
        torch.testing.assert_close(own.grad, expected.grad, rtol=1e-2, atol=2e-2, msg=name)


@every_form
@every_shape
@pytest.mark.parametrize("fold", [False, True])
@pytest.mark.parametrize("bias_bits", [8, 32])
def test_the_deployed_numbers_reproduce_the_layer(
    shape: str, options: dict[str, Any], fold: bool, bias_bits: int
) -> None:
    module = linear_layer(SHAPES[shape], fold_batchnorm=fold, bias_bits=bias_bits, **options)
    deployed = module.deployed()
    assert torch.equal(deployed.steps, deployed.steps.round())
    if module.norm is not None and not fold:
        assert (deployed.scale < 0).any(), "γ has both signs"
    weight = (deployed.steps - a_channel(deployed.zero_point)) * a_channel(deployed.scale)
    torch.testing.assert_close(
        module(features()), convolve(module, features(), weight, deployed.bias), rtol=1e-4, atol=1e-5
    )


def test_a_layer_whose_weights_stay_float_has_no_steps_and_computes_as_it_did() -> None:
    module = QuantizedConvolution(SHAPES["full"], CHANNELS, QuantizationConfig(), "float", feeds_head=True).eval()
    plain = Convolution(SHAPES["full"], CHANNELS).eval()
    plain.load_state_dict(module.state_dict())
    assert torch.equal(module(features()), plain(features()))
    with pytest.raises(ValueError, match="weights that stay float have no steps"):
        module.deployed()


def test_the_bias_lies_on_a_grid_of_its_bits() -> None:
    bias = linear_layer(SHAPES["with a bias"], bias_bits=4).deployed().bias
    steps = bias / (bias.abs().max() / 7)
    torch.testing.assert_close(steps, steps.round())
    exact = linear_layer(SHAPES["with a bias"], bias_bits=32)
    assert exact.conv.bias is not None
    assert torch.equal(exact.deployed().bias, exact.conv.bias)


@pytest.mark.parametrize("fold", [False, True])
def test_a_channel_that_is_switched_off_gives_its_beta(fold: bool) -> None:
    module = linear_layer(SHAPES["full"], fold_batchnorm=fold)
    assert module.norm is not None
    with torch.no_grad():
        module.norm.weight[2] = 0
        module.conv.weight[4] = 0
    values = module(features())
    torch.testing.assert_close(values[:, 2], module.norm.bias[2].expand_as(values[:, 2]))
    assert torch.isfinite(values).all()


def on_grid(values: Tensor, quantizer: ActivationQuantizer) -> bool:
    return torch.equal(quantizer.grid().snap(values), values)


def ranged(module: nn.Module, low: float = -4.0, high: float = 4.0) -> nn.Module:
    for part in module.modules():
        if isinstance(part, ActivationQuantizer):
            part.set_range(torch.tensor(low), torch.tensor(high))
    return module.eval()


@pytest.mark.parametrize("activation", ["linear", "relu", "relu6", "leaky", "mish", "swish", "h_swish", "logistic"])
def test_what_is_looked_up_in_a_table_is_put_on_a_grid_before(activation: str) -> None:
    """A clamp is not: it is an end of the grid."""
    layer = conv(6, 3, activation=activation)
    module = QuantizedConvolution(layer, CHANNELS, QuantizationConfig(activation_bits=4), 8, feeds_head=False)
    ranged(module)
    assert (module.before is None) == (activation in ("linear", "relu", "relu6"))
    assert module.output is not None
    assert on_grid(module(features()), module.output)
    if module.before is not None:
        assert (module.before.bits, module.before.rule) == (8, "asymmetric")
        assert module(torch.randn(40, CHANNELS, 9, 7)).unique().numel() <= 16


def test_squeeze_excitation_approaches_the_float_one_as_bits_grow() -> None:
    layer = SqueezeExcite(filters=CHANNELS, reduction=2)
    plain = build_layer(layer, CHANNELS).eval()
    noise = []
    for bits in (8, 12, 16):
        module = QuantizedSqueezeExcitation(layer, QuantizationConfig(weight_bits=bits, activation_bits=bits))
        module.load_state_dict(plain.state_dict(), strict=False)
        ranged(module)
        values = module(features())
        assert on_grid(values, module.output)
        noise.append(signal_to_noise(plain(features()).clamp(-4, 4), values))
    assert noise[0] > 30
    assert [later - earlier for earlier, later in pairwise(noise)] == pytest.approx([24, 24], abs=5)


def test_sums_and_concatenations_and_averages_are_put_on_one_grid() -> None:
    config = QuantizationConfig()
    first, second = features(seed=1), features(seed=2)
    addition = QuantizedAddition(Shortcut(from_layer=-2, activation="linear"), config)
    concatenation = QuantizedConcatenation(Route(layers=(-1, -2)), config)
    pooling = QuantizedAveragePooling(Avgpool(), config)
    for module in (addition, concatenation, pooling):
        ranged(module)
    assert torch.equal(addition(first, second), addition.output.grid().snap(first + second))
    joined = torch.cat([first, second], 1)
    assert torch.equal(concatenation(first, second), concatenation.output.grid().snap(joined))
    mean = pooling.output.grid().snap(first.mean((2, 3), keepdim=True))
    torch.testing.assert_close(pooling(first), mean)
