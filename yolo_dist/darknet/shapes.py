"""What flows through a cfg's network: channels, sizes, strides, and what each layer costs."""

from dataclasses import dataclass, replace

from yolo_dist.darknet.cfg import (
    Avgpool,
    Cfg,
    Convolutional,
    Depthwise,
    Dropout,
    Layer,
    Maxpool,
    Route,
    Shortcut,
    SqueezeExcite,
    Upsample,
    Yolo,
    sources,
)
from yolo_dist.errors import CfgError


@dataclass(frozen=True)
class LayerShape:
    """One layer's input channels, output and cost for one image.

    Attributes:
        in_channels: channels of all inputs together.
        out_channels: channels of the output.
        width, height: the output in cells.
        stride: image pixels a cell.
        parameters: trained numbers.
        weight_floats: numbers in a weights file: parameters and the statistics of batch normalisation.
        macs: multiply-accumulate operations of the convolutions.
    """

    in_channels: int
    out_channels: int
    width: int
    height: int
    stride: int
    parameters: int = 0
    weight_floats: int = 0
    macs: int = 0


def infer_shapes(cfg: Cfg, image_size: tuple[int, int] | None = None) -> tuple[LayerShape, ...]:
    """The shape of every layer.

    Args:
        cfg: the network.
        image_size: (width, height) in pixels; by default the cfg's own.

    Raises:
        CfgError: layers do not fit each other; names the layer and both sides.
    """
    width, height = image_size or cfg.size
    image = LayerShape(cfg.net.channels, cfg.net.channels, width, height, stride=1)
    shapes: list[LayerShape] = []
    for index, layer in enumerate(cfg.layers):
        inputs = [shapes[source] for source in sources(layer, index)] or [image]
        try:
            shapes.append(_shape(layer, inputs))
        except ValueError as problem:
            raise CfgError(f"{cfg.place(index)}: {problem} (input image {width}×{height})") from None
    return tuple(shapes)


def count_parameters(cfg: Cfg) -> int:
    """Trained numbers of the whole network."""
    return sum(shape.parameters for shape in infer_shapes(cfg))


def count_weight_floats(cfg: Cfg) -> int:
    """float32 numbers in the body of the network's weights file."""
    return sum(shape.weight_floats for shape in infer_shapes(cfg))


def count_macs(cfg: Cfg, image_size: tuple[int, int] | None = None) -> int:
    """Multiply-accumulate operations of the convolutions for one image of (width, height) pixels."""
    return sum(shape.macs for shape in infer_shapes(cfg, image_size))


def _shape(layer: Layer, inputs: list[LayerShape]) -> LayerShape:
    first = inputs[0]
    same = LayerShape(first.out_channels, first.out_channels, first.width, first.height, first.stride)
    match layer:
        case Convolutional() | Depthwise():
            return _convolution(layer, same)
        case SqueezeExcite():
            return _squeeze_excite(layer, same)
        case Maxpool():
            width, height = (
                _windows(side + layer.total_padding, layer.window, layer.stride) for side in (same.width, same.height)
            )
            return replace(same, width=width, height=height, stride=same.stride * layer.stride)
        case Avgpool():
            return replace(same, width=1, height=1, stride=same.stride * max(same.width, same.height))
        case Upsample():
            return _upsample(layer, same)
        case Route():
            return _route(layer, inputs)
        case Shortcut():
            return _shortcut(inputs)
        case Dropout():
            return same
        case Yolo():
            return _yolo(layer, same)


def _windows(side: int, window: int, stride: int) -> int:
    if side < window:
        raise ValueError(f"a window of {window} does not fit into {side} padded pixels")
    return (side - window) // stride + 1


def _convolution(layer: Convolutional | Depthwise, given: LayerShape) -> LayerShape:
    channels = given.in_channels
    if isinstance(layer, Depthwise) and layer.filters != channels:
        raise ValueError(f"filters is {layer.filters}, but the input has {channels} channels; depthwise keeps them")
    if channels % layer.groups or layer.filters % layer.groups:
        raise ValueError(f"groups {layer.groups} does not divide {channels} input channels and {layer.filters} filters")
    window, border = (layer.size - 1) * layer.dilation + 1, layer.border * layer.dilation
    width = _windows(given.width + 2 * border, window, layer.stride)
    height = _windows(given.height + 2 * border, window, layer.stride)
    weights = layer.filters * (channels // layer.groups) * layer.size**2
    return LayerShape(
        in_channels=channels,
        out_channels=layer.filters,
        width=width,
        height=height,
        stride=given.stride * layer.stride,
        parameters=weights + layer.filters * (2 if layer.batch_normalize else 1),
        weight_floats=weights + layer.filters * (4 if layer.batch_normalize else 1),
        macs=weights * width * height,
    )


def _squeeze_excite(layer: SqueezeExcite, given: LayerShape) -> LayerShape:
    if layer.filters != given.in_channels:
        raise ValueError(f"filters is {layer.filters}, but the input has {given.in_channels} channels")
    weights = 2 * layer.filters * layer.hidden_channels
    return replace(given, parameters=weights, weight_floats=weights, macs=weights)


def _upsample(layer: Upsample, given: LayerShape) -> LayerShape:
    if given.stride % layer.stride:
        raise ValueError(f"upsampling stride {given.stride} by {layer.stride} leaves no whole number of pixels a cell")
    width, height = given.width * layer.stride, given.height * layer.stride
    return replace(given, width=width, height=height, stride=given.stride // layer.stride)


def _route(layer: Route, inputs: list[LayerShape]) -> LayerShape:
    _same_size(inputs)
    if uneven := [shape.out_channels for shape in inputs if shape.out_channels % layer.groups]:
        raise ValueError(f"groups {layer.groups} does not divide {uneven[0]} channels")
    channels = sum(shape.out_channels for shape in inputs)
    return _merged(inputs, channels, channels // layer.groups)


def _shortcut(inputs: list[LayerShape]) -> LayerShape:
    _same_size(inputs)
    widths = [shape.out_channels for shape in inputs]
    if len(set(widths)) > 1:
        raise ValueError(f"adds layers of {' and '.join(map(str, widths))} channels; they must be equal")
    return _merged(inputs, widths[0], widths[0])


def _merged(inputs: list[LayerShape], in_channels: int, out_channels: int) -> LayerShape:
    return LayerShape(in_channels, out_channels, inputs[0].width, inputs[0].height, inputs[0].stride)


def _same_size(inputs: list[LayerShape]) -> None:
    if len({(shape.width, shape.height) for shape in inputs}) > 1:
        sizes = " and ".join(f"{shape.width}×{shape.height}" for shape in inputs)
        raise ValueError(f"joins maps of {sizes} cells; they must be equal")


def _yolo(layer: Yolo, given: LayerShape) -> LayerShape:
    if given.in_channels != layer.channels:
        needed = f"{len(layer.head_anchors)} anchors × (5 + {layer.classes} classes) = {layer.channels}"
        raise ValueError(f"reads {given.in_channels} channels, but needs {needed}")
    return given
