"""The zoo, and cfgs adapted to classes, anchors and widths."""

from importlib.resources import files

import pytest

from yolo_dist.darknet.adapt import with_heads, with_width
from yolo_dist.darknet.cfg import Convolutional, Yolo, format_cfg, parse_cfg
from yolo_dist.darknet.shapes import count_parameters, infer_shapes
from yolo_dist.darknet.zoo import ZOO, zoo_cfg
from yolo_dist.errors import CfgError, ConfigError

SIX = [(4, 5), (8, 10), (12, 9), (20, 30), (40, 33), (60, 80)]


def test_every_file_of_the_zoo_is_listed_and_written_as_we_write_cfgs() -> None:
    texts = {
        path.name.removesuffix(".cfg"): path.read_text()
        for path in files("yolo_dist.darknet.zoo").iterdir()
        if path.name.endswith(".cfg")
    }
    assert sorted(texts) == sorted(ZOO)
    assert all(format_cfg(parse_cfg(text)) == text for text in texts.values())


@pytest.mark.parametrize("name", ZOO)
@pytest.mark.parametrize("width", [1.0, 0.5, 0.01])
def test_any_classes_and_width_fit_together(name: str, width: float) -> None:
    cfg = zoo_cfg(name, classes=3, width=width, image_size=(96, 64), channels=1)
    assert infer_shapes(cfg)[0].in_channels == 1
    assert cfg.size == (96, 64)
    assert {yolo.classes for yolo in cfg.layers if isinstance(yolo, Yolo)} == {3}
    heads = [cfg.layers[index] for index in cfg.head_convolutions.values()]
    assert {head.filters for head in heads if isinstance(head, Convolutional)} == {24}


def test_half_the_width_has_about_a_quarter_of_the_parameters() -> None:
    assert count_parameters(zoo_cfg("yolov3-tiny", width=0.5)) / count_parameters(
        zoo_cfg("yolov3-tiny")
    ) == pytest.approx(0.25, abs=0.01)


@pytest.mark.parametrize("name", ZOO)
def test_full_width_is_the_identity(name: str) -> None:
    assert with_width(zoo_cfg(name), 1.0) == zoo_cfg(name)


def test_anchors_are_dealt_to_the_heads_by_their_masks() -> None:
    cfg = zoo_cfg("yolov3-tiny", anchors=SIX)
    coarse, fine = (layer for layer in cfg.layers if isinstance(layer, Yolo))
    assert coarse.head_anchors == ((20, 30), (40, 33), (60, 80))
    assert fine.head_anchors == ((4, 5), (8, 10), (12, 9))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        pytest.param({"name": "yolov3-tinny"}, r"yolov3-tinny is not in the zoo; did you mean yolov3-tiny", id="name"),
        pytest.param({"name": "resnet"}, r"resnet is not in the zoo; did you mean yolov3, ", id="nothing like it"),
        pytest.param(
            {"name": "yolov3", "anchors": SIX}, r"6 given, but yolov3: layer 82 \[yolo\] has num=9", id="count"
        ),
        pytest.param({"name": "yolov3-tiny", "anchors": [(0, 1)] * 6}, r"anchors\.0\.0: .*greater than 0", id="anchor"),
        pytest.param({"name": "yolov3-tiny", "classes": 0}, r"classes: .*greater than 0", id="classes"),
        pytest.param({"name": "yolov3-tiny", "width": 0.0}, r"width: 0 is not a positive number", id="width"),
        pytest.param(
            {"name": "yolov3-tiny", "width": float("nan")}, r"width: nan is not", id="width that is no number"
        ),
        pytest.param({"name": "yolov3-tiny", "image_size": (0, 416)}, r"width: .*greater than 0", id="size"),
    ],
)
def test_what_the_zoo_cannot_build_is_a_config_error(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        zoo_cfg(**arguments)  # type: ignore[arg-type]


def test_a_head_that_no_convolution_feeds_cannot_change_its_classes() -> None:
    text = "[net]\nwidth=32\nheight=32\n[conv]\nfilters=6\n[dropout]\n[yolo]\nanchors=1,2\nclasses=1\n"
    with pytest.raises(
        CfgError, match=r"x: layer 2 \[yolo\]: must follow a convolutional layer, not x: layer 1 \[drop"
    ):
        with_heads(parse_cfg(text, "x"), classes=2)
