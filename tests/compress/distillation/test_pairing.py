"""Which layers of a student are compared with which of its teacher, and teachers that do not fit."""

import pytest
from made_batches import two_heads
from small_networks import cfg_of, conv, head

from yolo_dist.compress.distillation.pairing import paired_layers, require_equal_heads, require_equal_maps
from yolo_dist.compress.graph import ChannelGraph
from yolo_dist.compress.pruning.layer_removal import cfg_without
from yolo_dist.compress.residual import residual_blocks
from yolo_dist.darknet.cfg import Shortcut
from yolo_dist.darknet.network import Network
from yolo_dist.errors import ConfigError

BLOCK = (conv(4), conv(8, 3), Shortcut(from_layer=(-3,)))
RESIDUAL = cfg_of(
    conv(8, 3, 2),
    conv(4),
    conv(8, 3),
    Shortcut(from_layer=(-3,)),
    conv(4),
    conv(8, 3),
    Shortcut(from_layer=(-3,)),
    *head(),
)


def test_without_layer_pruning_every_convolution_before_those_of_heads_meets_itself() -> None:
    network = two_heads(1)
    layers = range(len(network.layers))
    assert paired_layers(network.cfg, network.cfg, layers, layers) == {0: 0, 1: 1, 2: 2, 3: 3}


def test_after_layer_pruning_a_layer_meets_the_one_it_was() -> None:
    block = residual_blocks(ChannelGraph.from_cfg(RESIDUAL))[0]
    shortened = cfg_without(RESIDUAL, [block])
    pairs = paired_layers(shortened.cfg, RESIDUAL, shortened.lineage, range(len(RESIDUAL.layers)))
    assert pairs == {0: 0, 1: 4, 2: 5}


def test_a_teacher_that_lost_layers_too_is_met_where_both_still_have_them() -> None:
    first, second = residual_blocks(ChannelGraph.from_cfg(RESIDUAL))
    student, teacher = cfg_without(RESIDUAL, [first]), cfg_without(RESIDUAL, [second])
    assert paired_layers(student.cfg, teacher.cfg, student.lineage, teacher.lineage) == {0: 0}


def test_networks_of_different_chains_are_refused_with_both_strides_named() -> None:
    other = cfg_of(conv(8, 3, 2), conv(8, 3, 2), conv(8, 3), *head())
    layers = range(len(other.layers))
    message = "layer 1 of the student has stride 2, and layer 1 of the teacher.* 4; name pairs with distillation.layers"
    with pytest.raises(ConfigError, match=message):
        paired_layers(RESIDUAL, other, range(len(RESIDUAL.layers)), layers)


def test_pairs_that_are_not_there_are_refused() -> None:
    with pytest.raises(ConfigError, match="no pair 0: 99; the student has 9 layers, the teacher 9"):
        require_equal_maps(RESIDUAL, RESIDUAL, {0: 99})
    with pytest.raises(ConfigError, match="no layer of the student is one of the teacher's"):
        paired_layers(RESIDUAL, RESIDUAL, [None] * 9, range(9))


def test_other_heads_are_refused_with_both_named() -> None:
    require_equal_heads(two_heads(1), two_heads(2, width=9), "base")
    student, teacher = two_heads(1, classes=2), Network(RESIDUAL)
    message = (
        "the student's heads are 2 anchors × 7 at stride 16 and 2 anchors × 7 at stride 8, "
        "those of big 2 anchors × 6 at stride 2; take a teacher with as many anchors"
    )
    with pytest.raises(ConfigError, match=message):
        require_equal_heads(student, teacher, "big")
