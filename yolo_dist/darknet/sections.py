"""The sections of a Darknet cfg as typed, immutable data; defaults are Darknet's own."""

from typing import Annotated, Any, ClassVar, Literal, get_args

from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field, model_validator

from yolo_dist.config import Config

Activation = Literal["linear", "leaky", "relu", "relu6", "h_swish", "mish", "swish", "logistic"]

LARGEST = 1 << 16
"""No channel count or size is larger, so that a mistyped one is an error before memory runs out."""


def _items(value: Any) -> Any:
    if isinstance(value, str):
        return [item.strip() for item in value.split(",")]
    return [value] if isinstance(value, int) else value


def _pairs(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    numbers = _items(value)
    if len(numbers) % 2:
        raise ValueError(f"{len(numbers)} numbers do not make width,height pairs")
    return list(zip(numbers[::2], numbers[1::2], strict=True))


def _flag(value: Any) -> Any:
    if value in ("0", "1", 0, 1):
        return value
    raise ValueError("must be 0 or 1")


def _zero(value: int) -> int:
    if value:
        raise ValueError("only 0 is implemented")
    return value


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


Count = Annotated[int, Field(gt=0, le=LARGEST)]
Size = Annotated[int, Field(ge=0, le=LARGEST)]
Flag = Annotated[bool, BeforeValidator(_flag)]
Indices = Annotated[tuple[int, ...], BeforeValidator(_items), Field(min_length=1)]
Pixels = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Anchors = Annotated[tuple[tuple[Pixels, Pixels], ...], BeforeValidator(_pairs), Field(min_length=1)]

TRAINING_KEYS_OF_ANY_LAYER = _words("burnin_update onlyforward stopbackward train_only_bn")


class Section(Config):
    """One section of a cfg; fields are its keys, written back only where they were set."""

    model_config = ConfigDict(populate_by_name=True)

    section: ClassVar[str]
    training_only: ClassVar[frozenset[str]] = TRAINING_KEYS_OF_ANY_LAYER
    """Keys that steer only Darknet's own training: accepted and preserved, without meaning here."""

    training: tuple[tuple[str, str], ...] = ()
    """Those of them that the file holds, as (key, text), in its order."""

    @classmethod
    def keys(cls) -> dict[str, str]:
        """The keys that have a meaning here → the names of their fields."""
        return {field.alias or name: name for name, field in cls.model_fields.items() if name != "training"}

    def training_option(self, key: str) -> str | None:
        """The text of a key that only Darknet's training reads, if the file holds it."""
        return dict(self.training).get(key)


class Net(Section):
    """The input of the network."""

    section = "net"
    training_only = _words(
        "B1 B2 adam angle aspect batch blur burn_in center cutmix decay dynamic_minibatch ema_alpha eps exposure flip "
        "gamma gaussian_noise hue label_smooth_eps learning_rate learning_rate_min letter_box loss_scale max_batches "
        "max_chart_loss max_crop min_crop mixup momentum mosaic mosaic_bound optimized_memory policy power random "
        "saturation scale scales seq_scales sgdr_cycle sgdr_mult show_details step steps subdivisions time_steps track "
        "try_fix_nan workspace_size_limit_MB"
    )

    width: Count  # pixels
    height: Count  # pixels
    channels: Count = 3


class Kernel(Section):
    """What convolutional and depthwise layers share."""

    batch_normalize: Flag = False
    filters: Count = 1
    size: Count = 1  # kernel width and height
    stride: Count = 1
    pad: Flag = False  # on: padding is size // 2, whatever `padding` says
    padding: Size = 0  # pixels on each side, in units of the dilation
    dilation: Count = 1
    activation: Activation = "logistic"

    @model_validator(mode="after")
    def _dilation_keeps_the_size(self) -> "Kernel":
        if self.dilation > 1 and 2 * self.border != self.size - 1:
            raise ValueError("dilation needs an odd size and pad=1: Darknet computes the output size without it")
        return self

    @property
    def border(self) -> int:
        """Zero padding of each side before dilation, in pixels."""
        return self.size // 2 if self.pad else self.padding


class Convolutional(Kernel):
    """Convolution, optional batch normalisation, activation."""

    section = "convolutional"
    groups: Count = 1


class Depthwise(Kernel):
    """A convolution with one filter a channel; `filters` equals the input channels."""

    section = "depthwise"

    @property
    def groups(self) -> int:
        """As many as channels."""
        return self.filters


class SqueezeExcite(Section):
    """Channel gates from the global average through two 1×1 convolutions (Hu et al. 2018)."""

    section = "se"
    filters: Count  # input channels
    reduction: Count = 4  # input channels for each hidden one
    hidden: Count | None = None  # channels between the two; absent: filters // reduction

    @property
    def hidden_channels(self) -> int:
        """Channels between the two convolutions."""
        return self.hidden or max(1, self.filters // self.reduction)


class Maxpool(Section):
    """Maximum over a window; what lies outside counts as −∞."""

    section = "maxpool"
    size: Count | None = None  # absent: stride
    stride: Count = 1
    padding: Size | None = None  # pixels, left and right together; absent: size − 1
    pad: Size | None = None  # another name of `padding`, which goes first

    @model_validator(mode="after")
    def _every_window_holds_a_pixel(self) -> "Maxpool":
        if self.total_padding // 2 >= self.window or self.total_padding > 2 * (self.window - 1):
            raise ValueError(f"padding {self.total_padding} leaves windows of size {self.window} without a pixel")
        return self

    @property
    def window(self) -> int:
        """Width and height of the window in pixels."""
        return self.size or self.stride

    @property
    def total_padding(self) -> int:
        """Padding of left and right (top and bottom) together, in pixels; the left half is rounded down."""
        given = self.pad if self.padding is None else self.padding
        return self.window - 1 if given is None else given


class Avgpool(Section):
    """Average over the whole map: 1×1 out."""

    section = "avgpool"


class Upsample(Section):
    """Nearest-neighbour enlargement."""

    section = "upsample"
    stride: Count = 2


class Route(Section):
    """Concatenation of layers, or of one of `groups` equal channel slices of each."""

    section = "route"
    layers: Indices  # negative: relative to this layer
    groups: Count = 1
    group_id: Size = 0

    @model_validator(mode="after")
    def _group_exists(self) -> "Route":
        if self.group_id >= self.groups:
            raise ValueError(f"group_id {self.group_id} is not one of {self.groups} groups, which count from 0")
        return self


class Shortcut(Section):
    """Sum of the previous layer and others, then the activation."""

    section = "shortcut"
    from_layer: Indices = Field(alias="from")  # negative: relative to this layer
    activation: Activation = "linear"
    weights_type: Literal["none"] = "none"
    weights_normalization: Literal["none"] = "none"


class Dropout(Section):
    """Zeroes elements while training."""

    section = "dropout"
    probability: float = Field(0.5, ge=0, lt=1)


class Yolo(Section):
    """A detection head's anchors and classes; its input holds 5 + classes channels an anchor."""

    section = "yolo"
    training_only = TRAINING_KEYS_OF_ANY_LAYER | _words(
        "beta_nms cls_normalizer counters_per_class delta_normalizer focal_loss ignore_thresh iou_loss iou_normalizer "
        "iou_thresh iou_thresh_kind jitter label_smooth_eps max max_boxes max_delta nms_kind obj_normalizer "
        "objectness_smooth random resize track_ciou_norm track_history_size truth_thresh"
    )

    mask: Annotated[tuple[int, ...], BeforeValidator(_items)] = ()  # which anchors are this head's; absent: all
    anchors: Anchors  # width, height of all heads' anchors in pixels
    classes: Count = 20
    num: Count = 1  # number of anchors
    scale_x_y: float = Field(1.0, gt=0, allow_inf_nan=False)
    new_coords: Annotated[int, AfterValidator(_zero)] = 0

    @model_validator(mode="after")
    def _anchors_exist(self) -> "Yolo":
        if len(self.anchors) != self.num:
            raise ValueError(f"num is {self.num}, but there are {len(self.anchors)} anchors")
        if absent := [index for index in self.mask if not 0 <= index < self.num]:
            raise ValueError(f"mask names anchor {absent[0]}; there are {self.num}, counted from 0")
        return self

    @property
    def head_anchors(self) -> tuple[tuple[float, float], ...]:
        """This head's anchors: (width, height) in pixels."""
        return tuple(self.anchors[index] for index in self.mask or range(self.num))

    @property
    def channels(self) -> int:
        """Channels the head reads: x, y, w, h, objectness and the classes of each of its anchors."""
        return len(self.head_anchors) * (5 + self.classes)


Layer = Convolutional | Depthwise | SqueezeExcite | Maxpool | Avgpool | Upsample | Route | Shortcut | Dropout | Yolo

SECTIONS: dict[str, type[Layer]] = {layer.section: layer for layer in get_args(Layer)}
"""Every layer type by the name of its section."""
