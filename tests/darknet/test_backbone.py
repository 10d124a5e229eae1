"""Where backbones end, on the zoo and on graphs small enough to see it."""

import pytest
from small_networks import cfg_of, conv, head

from yolo_dist.darknet.backbone import backbone, unused_layers
from yolo_dist.darknet.cfg import Layer, Route, Shortcut, Upsample, Yolo, sources
from yolo_dist.darknet.zoo import ZOO, zoo_cfg

LAST = {
    "yolov3": 79,
    "yolov3-spp": 86,
    "yolov3-tiny": 13,
    "yolov3-tiny-3l": 13,
    "yolov3-mobilenet": 69,
    "yolov3tiny-mobilenet-small": 50,
    "yolov4": 117,
    "yolov4-tiny": 27,
}


@pytest.mark.parametrize("name", ZOO)
def test_backbones_of_the_zoo_are_their_first_layers(name: str) -> None:
    assert backbone(zoo_cfg(name)) == list(range(LAST[name] + 1))


@pytest.mark.parametrize("name", ZOO)
def test_a_backbone_needs_nothing_from_outside_and_no_head_can_do_without_its_end(name: str) -> None:
    """Cutting its last layer off leaves no head that still sees the image."""
    cfg = zoo_cfg(name)
    inside = set(backbone(cfg))
    assert all(set(sources(cfg.layers[index], index)) <= inside for index in inside)
    sees_image = [max(inside) != 0]
    for index in range(1, len(cfg.layers)):
        reads = sources(cfg.layers[index], index)
        sees_image.append(index != max(inside) and all(sees_image[source] for source in reads))
    heads = [index for index, layer in enumerate(cfg.layers) if isinstance(layer, Yolo)]
    assert heads
    assert not any(sees_image[index] for index in heads)


SCALES: list[Layer] = [
    *(conv(4, 3, 2), conv(4, 3, 2), conv(4), Shortcut(from_layer=(-2,))),  # 0 to 3
    *(conv(8, 3, 2), conv(8)),  # 4, 5: the trunk of both heads ends at 5
    *head(mask=(1,)),  # 6, 7
    *(Route(layers=(5,)), conv(4), Upsample(stride=2), Route(layers=(10, 3)), *head(mask=(0,))),
]


def test_it_ends_where_the_branches_part() -> None:
    assert backbone(cfg_of(*SCALES)) == [0, 1, 2, 3, 4, 5]


def test_of_a_single_head_all_but_its_convolution_is_backbone() -> None:
    assert backbone(cfg_of(conv(4), conv(4), *head())) == [0, 1]
    assert backbone(cfg_of(*head())) == []


def test_a_layer_that_leads_to_no_head_is_unused() -> None:
    assert unused_layers(cfg_of(*SCALES)) == []
    assert unused_layers(cfg_of(conv(4), conv(8), conv(8), Route(layers=(0,)), *head())) == [1, 2]
