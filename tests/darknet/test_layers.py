"""Layers against NumPy and closed forms."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from yolo_dist.darknet.cfg import Avgpool, Convolutional, Depthwise, Maxpool, Route, Shortcut, SqueezeExcite, Upsample
from yolo_dist.darknet.layers import ACTIVATIONS, Convolution, SqueezeExcitation, build_layer


def relu6(x: float) -> float:
    return min(max(x, 0.0), 6.0)


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


@pytest.mark.parametrize(
    ("name", "formula"),
    [
        ("linear", lambda x: x),
        ("leaky", lambda x: x if x > 0 else 0.1 * x),
        ("relu", lambda x: max(x, 0.0)),
        ("relu6", relu6),
        ("h_swish", lambda x: x * relu6(x + 3) / 6),
        ("mish", lambda x: x * math.tanh(math.log1p(math.exp(x)))),
        ("swish", lambda x: x * sigmoid(x)),
        ("logistic", sigmoid),
    ],
)
def test_activations_equal_their_closed_forms(name: str, formula: Callable[[float], float]) -> None:
    values = [-7.0, -3.0, -1.3, -0.2, 0.0, 0.4, 2.9, 3.0, 6.5, 12.0]
    activation = ACTIVATIONS[name]()  # type: ignore[index]
    np.testing.assert_allclose(activation(torch.tensor(values)), [formula(x) for x in values], rtol=1e-5, atol=1e-6)
    assert len(ACTIVATIONS) == 8


def pooled(image: NDArray[np.float32], size: int, stride: int, padding: int) -> NDArray[np.float32]:
    """Darknet's maximum pooling of one map, window by window."""
    height, width = image.shape
    rows, columns = ((side + padding - size) // stride + 1 for side in (height, width))
    out = np.full((rows, columns), -np.inf, np.float32)
    for row in range(rows):
        for column in range(columns):
            for y in range(row * stride - padding // 2, row * stride - padding // 2 + size):
                for x in range(column * stride - padding // 2, column * stride - padding // 2 + size):
                    if 0 <= y < height and 0 <= x < width:
                        out[row, column] = max(out[row, column], image[y, x])
    return out


@pytest.mark.parametrize("shape", [(6, 8), (7, 9), (13, 13)])
@pytest.mark.parametrize(
    ("size", "stride", "padding"),
    [
        *((2, 1, None), (2, 2, None), (3, 1, None), (3, 2, None), (4, 1, None), (4, 2, None), (4, 3, None)),
        *((5, 1, None), (1, 2, None), (2, 1, 0), (2, 2, 0), (3, 2, 1), (3, 3, 1), (3, 2, 3), (3, 1, 4), (5, 2, 7)),
    ],
)
def test_maxpool_equals_darknets(size: int, stride: int, padding: int | None, shape: tuple[int, int]) -> None:
    image = -1 - np.random.default_rng(0).random(shape, np.float32)  # zeros from a wrong padding would win
    module = build_layer(Maxpool(size=size, stride=stride, padding=padding), 1)
    expected = pooled(image, size, stride, size - 1 if padding is None else padding)
    np.testing.assert_array_equal(module(torch.from_numpy(image)[None, None])[0, 0], expected)


def test_maxpool_2_1_pads_right_and_bottom() -> None:
    image = torch.tensor([[[[-5.0, -2.0], [-3.0, -4.0]]]])
    assert build_layer(Maxpool(size=2, stride=1), 1)(image).tolist() == [[[[-2.0, -2.0], [-3.0, -4.0]]]]


def numbered(channels: int) -> Tensor:
    """A 1×1 map whose channels hold their own numbers."""
    return torch.arange(float(channels)).view(1, channels, 1, 1)


@pytest.mark.parametrize(
    ("route", "inputs", "expected"),
    [
        pytest.param(Route(layers=(-1,)), [4], [0, 1, 2, 3], id="one layer"),
        pytest.param(Route(layers=(-1, -2)), [2, 3], [0, 1, 0, 1, 2], id="concatenation in the order listed"),
        pytest.param(Route(layers=(-1,), groups=2, group_id=1), [4], [2, 3], id="second half"),
        pytest.param(Route(layers=(-1,), groups=2), [4], [0, 1], id="first half"),
        pytest.param(Route(layers=(-1,), groups=3, group_id=1), [6], [2, 3], id="middle third"),
        pytest.param(Route(layers=(-1, -2), groups=2, group_id=1), [2, 4], [1, 2, 3], id="slices of each, not of all"),
    ],
)
def test_routes(route: Route, inputs: list[int], expected: list[int]) -> None:
    assert build_layer(route, sum(inputs))(*map(numbered, inputs)).flatten().tolist() == expected


def test_a_shortcut_adds_all_and_then_activates() -> None:
    one = torch.full((1, 1, 1, 1), -1.0)
    assert build_layer(Shortcut(from_layer=(-2, -3), activation="leaky"), 1)(one, one, one).item() == pytest.approx(
        -0.3
    )
    assert one.item() == -1


def test_upsample_repeats_and_avgpool_averages() -> None:
    image = torch.tensor([[[[1.0, 3.0]]]])
    assert build_layer(Upsample(stride=2), 1)(image).tolist() == [[[[1, 1, 3, 3], [1, 1, 3, 3]]]]
    assert build_layer(Avgpool(), 1)(image).tolist() == [[[[2.0]]]]


def test_squeeze_excitation_equals_its_definition() -> None:
    module = build_layer(SqueezeExcite(filters=8, reduction=4), 8)
    assert isinstance(module, SqueezeExcitation)
    features = torch.randn(2, 8, 3, 5)
    mean = features.mean((2, 3)).numpy()
    first, second = (conv.weight.detach().numpy()[:, :, 0, 0] for conv in (module.fc1, module.fc2))
    assert first.shape == (2, 8)
    gate = np.clip(np.maximum(mean @ first.T, 0) @ second.T + 3, 0, 6) / 6
    expected = features.numpy() * gate[:, :, None, None]
    np.testing.assert_allclose(module(features).detach(), expected, rtol=1e-5, atol=1e-6)
    assert SqueezeExcite(filters=8, hidden=5).hidden_channels == 5


def convolved(image: NDArray[np.float64], weight: NDArray[np.float64], layer: Convolutional | Depthwise) -> list[float]:
    """One output row after another, from the definition."""
    border, size = layer.border * layer.dilation, layer.size
    padded = np.pad(image, ((0, 0), (border, border), (border, border)))
    width = weight.shape[1]
    reach = (size - 1) * layer.dilation + 1
    values = []
    for filter_, kernel in enumerate(weight):
        first = filter_ // (layer.filters // layer.groups) * width
        for y in range(0, padded.shape[1] - reach + 1, layer.stride):
            for x in range(0, padded.shape[2] - reach + 1, layer.stride):
                window = padded[first : first + width, y : y + reach : layer.dilation, x : x + reach : layer.dilation]
                values.append(float((window * kernel).sum()))
    return values


@pytest.mark.parametrize(
    "layer",
    [
        Convolutional(filters=6, size=3, pad=True, batch_normalize=True, activation="linear"),
        Convolutional(filters=6, size=3, padding=2, stride=2, activation="linear"),
        Convolutional(filters=6, size=1, pad=True, groups=2, activation="linear"),
        Convolutional(filters=6, size=3, pad=True, dilation=2, batch_normalize=True, activation="linear"),
        Depthwise(filters=4, size=5, stride=2, pad=True, batch_normalize=True, activation="linear"),
    ],
    ids=["plain", "padding without pad", "grouped", "dilated", "depthwise"],
)
def test_convolutions_equal_their_definition(layer: Convolutional | Depthwise) -> None:
    module = build_layer(layer, 4).eval()
    assert isinstance(module, Convolution)
    image = torch.randn(1, 4, 7, 6)
    expected = np.array(convolved(image[0].double().numpy(), module.conv.weight.detach().double().numpy(), layer))
    expected = expected.reshape(layer.filters, -1)
    if module.norm is None:
        assert module.conv.bias is not None
        expected += module.conv.bias.detach().numpy()[:, None]
    else:
        assert module.conv.bias is None
        expected /= math.sqrt(1 + 1e-5)
    np.testing.assert_allclose(module(image)[0].flatten(1).detach(), expected, rtol=1e-4, atol=1e-5)
