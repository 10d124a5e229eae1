"""What is said about each set of channels and each shortcut: which methods may cut it, and why not the others."""

import numpy as np
import pytest
from small_networks import cfg_of, conv, depthwise, head

from yolo_dist.compress.graph import ChannelGraph, Scope, plain_convolutions, prunable_convolutions
from yolo_dist.compress.pruning.explanation import Explanation, SetExplanation, explain, numbered
from yolo_dist.compress.pruning.method import METHODS, PruneConfig
from yolo_dist.compress.residual import ResidualBlock, residual_blocks
from yolo_dist.darknet.cfg import Convolutional, Layer, Maxpool, Route, Shortcut, SqueezeExcite, Upsample
from yolo_dist.darknet.shapes import infer_shapes
from yolo_dist.darknet.zoo import ZOO, zoo_cfg

SCOPES: tuple[Scope, ...] = ("classic", "full")


def graph_of(*layers: Layer) -> ChannelGraph:
    cfg = cfg_of(*layers)
    infer_shapes(cfg)
    return ChannelGraph.from_cfg(cfg)


def explained(*layers: Layer, scope: Scope = "classic") -> Explanation:
    return explain(graph_of(*layers), scope)


def set_of(explanation: Explanation, convolution: int) -> SetExplanation:
    (one,) = (one for one in explanation.sets if convolution in one.convolutions)
    return one


TIED: list[Layer] = [conv(4), conv(4, 3), Shortcut(from_layer=-2)]
PYRAMID: list[Layer] = [
    *(conv(4), Maxpool(size=5, stride=1), Route(layers=-2), Maxpool(size=9, stride=1), Route(layers=(-1, -3, -4))),
]


@pytest.mark.parametrize(
    ("layers", "convolution", "verdict"),
    [
        pytest.param([conv(4), conv(2)], 0, "yes", id="nothing in the way"),
        pytest.param([conv(4), Maxpool(size=2, stride=2), conv(2)], 0, "yes", id="ordinary pool"),
        pytest.param([conv(4), conv(6), Route(layers=(0, 1)), conv(2)], 0, "yes", id="concatenation"),
        pytest.param([*TIED, conv(2)], 1, "by shortcut and slim, not by normal: tied by shortcut 2", id="shortcut"),
        pytest.param(
            [*TIED, conv(4), Shortcut(from_layer=-2), conv(2)],
            3,
            "by shortcut and slim, not by normal: tied by shortcuts 2, 4",
            id="chain of shortcuts",
        ),
        pytest.param([conv(4), *head()], 1, "no: without batch normalisation (layer 1); head (layer 2)", id="head"),
        pytest.param([conv(4, batch_normalize=0), conv(2)], 0, "no: without batch normalisation (layer 0)", id="bias"),
        pytest.param(
            [conv(4, batch_normalize=0), conv(4), Shortcut(from_layer=-2), conv(2)],
            1,
            "no: without batch normalisation (layer 0)",
            id="tied to a convolution without batch normalisation",
        ),
        pytest.param([depthwise(3), conv(3), Shortcut(from_layer=-2), conv(2)], 1, "no: image", id="tied to the image"),
        pytest.param(
            [conv(4), conv(6, groups=2), conv(2)], 0, "no: grouped convolution (layer 1)", id="read in groups"
        ),
        pytest.param(
            [conv(4), conv(6, groups=2), conv(2)], 1, "no: grouped convolution (layer 1)", id="made in groups"
        ),
        pytest.param(
            [conv(4), Route(layers=-1, groups=2, group_id=1), conv(2)], 0, "no: grouped route (layer 1)", id="sliced"
        ),
        pytest.param(
            [conv(4, stride=2), Upsample(), conv(2)],
            0,
            "no: layer 0 feeds layer 1 [upsample] (classic scope)",
            id="upsampling",
        ),
        pytest.param(
            [conv(4), depthwise(4), conv(2)], 0, "no: layer 0 feeds layer 1 [depthwise] (classic scope)", id="depthwise"
        ),
        pytest.param(
            [conv(4), conv(4, 3, groups=4), conv(2)],
            0,
            "no: layer 0 feeds layer 1 [convolutional] (classic scope)",
            id="depthwise under its other name",
        ),
        pytest.param(
            [*PYRAMID, conv(2)],
            0,
            "no: layer 0 feeds layer 1 [maxpool] of a spatial pyramid (classic scope)",
            id="spatial pyramid",
        ),
        pytest.param(
            [*TIED, Route(layers=1), Route(layers=1), depthwise(4), conv(2)],
            0,
            "by shortcut and slim, not by normal: tied by shortcut 2",
            id="depthwise behind a route",
        ),
        pytest.param(
            [conv(4, stride=2), conv(4), Shortcut(from_layer=-2), Route(layers=-2), Upsample(), conv(2)],
            1,
            "by shortcut and slim, not by normal: tied by shortcut 2",
            id="upsampling behind a route",
        ),
        pytest.param(
            [conv(4), depthwise(4), conv(4), Shortcut(from_layer=0), conv(2)],
            2,
            "no: tied by shortcut 3; layer 0 feeds layer 1 [depthwise] (classic scope)",
            id="first of a tie left out",
        ),
        pytest.param(
            [conv(4), conv(4), depthwise(4), Shortcut(from_layer=0), conv(2)],
            0,
            "by shortcut, not by normal and slim: "
            "tied by shortcut 3; layer 1 feeds layer 2 [depthwise] (classic scope)",
            id="second of a tie left out",
        ),
    ],
)
def test_the_verdict_on_a_set_names_who_may_cut_it_and_why_not_others(
    layers: list[Layer], convolution: int, verdict: str
) -> None:
    assert set_of(explained(*layers), convolution).verdict == verdict


@pytest.mark.parametrize("layer", [Upsample(), depthwise(4)], ids=lambda layer: layer.section)
def test_the_full_scope_leaves_nothing_out(layer: Layer) -> None:
    one = set_of(explained(conv(4, stride=2), layer, conv(2), scope="full"), 0)
    assert (one.verdict, one.fate, one.reasons) == ("yes", "free", ())


@pytest.mark.parametrize(
    ("layers", "fates"),
    [
        ([conv(4), conv(2)], ["free", "free"]),
        ([*TIED, conv(2)], ["tied", "free"]),
        ([conv(4, stride=2), Upsample(), *head()], ["left out", "held"]),
    ],
)
def test_the_fate_of_a_set_is_its_verdict_in_a_word(layers: list[Layer], fates: list[str]) -> None:
    assert [one.fate for one in explained(*layers).sets] == fates


def test_layers_that_hand_channels_on_are_told_from_those_that_read_them() -> None:
    explanation = explained(
        conv(4, stride=2),
        SqueezeExcite(filters=4, reduction=2),
        Maxpool(size=2, stride=1),
        Upsample(),
        conv(6),
        Route(layers=(-1, -2)),
        *head(),
    )
    first, second, last = explanation.sets
    assert (first.convolutions, first.width, first.handed_on_by, first.read_by) == ((0,), 4, (1, 2, 3, 5), (4, 6))
    assert (second.convolutions, second.width, second.handed_on_by, second.read_by) == ((4,), 6, (5,), (6,))
    assert (last.handed_on_by, last.read_by) == ((), (7,))


def test_a_slice_is_handed_on_only_to_those_that_get_it() -> None:
    sliced = Route(layers=(0, 1), groups=2, group_id=1)
    first, second = explained(conv(4), conv(6), sliced, conv(2)).sets[:2]
    assert (first.handed_on_by, first.read_by) == ((2,), (1, 3))
    assert (second.handed_on_by, second.read_by) == ((2,), (3,))


def test_pieces_of_a_concatenation_are_sets_of_their_own() -> None:
    pieces = explained(conv(2), conv(3), Route(layers=(0, 1)), conv(5), Shortcut(from_layer=-2), conv(2)).sets[:2]
    assert [(one.convolutions, one.width, one.tied_by) for one in pieces] == [((0, 3), 2, (4,)), ((1, 3), 3, (4,))]


BLOCK: list[Layer] = [conv(4), conv(2), conv(4, 3)]


@pytest.mark.parametrize(
    ("layers", "shortcut", "reason"),
    [
        pytest.param([*BLOCK, Shortcut(from_layer=-3), conv(2)], 3, "", id="removable"),
        pytest.param(
            [*BLOCK, Shortcut(from_layer=-3, activation="leaky")], 3, "it has an activation, leaky", id="activation"
        ),
        pytest.param([conv(4), conv(4), conv(4), Shortcut(from_layer=(0, 1))], 3, "it adds 3 layers", id="three"),
        pytest.param(
            [conv(4), Route(layers=-1), conv(4), Route(layers=0), conv(4), Shortcut(from_layer=2)],
            5,
            "neither of layers 4 and 2 is a branch that starts from the other",
            id="two branches",
        ),
        pytest.param(
            [conv(4), conv(4), Maxpool(size=3, stride=1), Shortcut(from_layer=0)],
            3,
            "layer 2 [maxpool], which it adds, is no convolution with batch normalisation",
            id="pool on the branch's end",
        ),
        pytest.param(
            [*BLOCK, Shortcut(from_layer=-3), conv(2), Route(layers=(-1, 1)), conv(2)],
            3,
            "layer 5 [route] reads from inside its branch",
            id="read from inside",
        ),
    ],
)
def test_a_shortcut_that_closes_no_removable_block_says_why(layers: list[Layer], shortcut: int, reason: str) -> None:
    (one,) = explained(*layers).shortcuts
    assert (one.shortcut, one.reason, one.block is None, one.removed) == (shortcut, reason, bool(reason), None)


@pytest.mark.parametrize("name", ZOO)
@pytest.mark.parametrize("scope", SCOPES)
def test_every_convolution_of_the_zoo_is_explained_once_and_as_the_methods_choose(name: str, scope: Scope) -> None:
    graph = ChannelGraph.from_cfg(zoo_cfg(name))
    explanation = explain(graph, scope)
    assert sorted(index for one in explanation.sets for index in one.convolutions) == graph.creators()
    for one in explanation.sets:
        layers = [graph.cfg.layers[index] for index in one.convolutions]
        assert {layer.filters for layer in layers if isinstance(layer, Convolutional)} == {one.width}
        assert bool(one.reasons) != all(one.may_cut.values())
    normal, slim = (
        {index for one in explanation.sets if one.may_cut[rule] for index in one.convolutions}
        for rule in ("normal", "slim")
    )
    assert normal == set(plain_convolutions(graph, scope))
    candidates = set(prunable_convolutions(graph, scope))
    agreeing = [one.convolutions for one in graph.channel_sets() if candidates.issuperset(one.convolutions)]
    assert slim == {index for convolutions in agreeing for index in convolutions}
    assert [one.block for one in explanation.shortcuts if one.block] == residual_blocks(graph)


LEFT_OUT_TIE: list[Layer] = [
    *(conv(8), conv(8), depthwise(8), Shortcut(from_layer=0), conv(8, stride=2), Upsample(), conv(8), *head()),
]


@pytest.mark.parametrize("scope", SCOPES)
@pytest.mark.parametrize(
    ("method", "rule"), [("normal", "normal"), ("regular", "normal"), ("shortcut", "shortcut"), ("slim", "slim")]
)
@pytest.mark.parametrize("name", [*ZOO, "made"])
def test_what_a_rule_may_cut_is_what_its_methods_do_cut(name: str, method: str, rule: str, scope: Scope) -> None:
    graph = graph_of(*LEFT_OUT_TIE) if name == "made" else ChannelGraph.from_cfg(zoo_cfg(name))
    importance = {i: np.linspace(0.01, 1, len(graph.outputs[i]), dtype=np.float32) for i in graph.convolutions()}
    options = {"round_to": 1} if method == "regular" else {}
    plan = METHODS[method](graph, importance, PruneConfig(method=method, scope=scope, percent=0.5, **options))
    explanation = explain(graph, scope, plan.masks())
    assert {one.convolutions for one in explanation.sets if one.kept != one.width} == {
        one.convolutions for one in explanation.sets if one.may_cut[rule]
    }


def test_a_plan_says_how_many_channels_stay_and_which_blocks_go() -> None:
    graph = graph_of(*BLOCK, Shortcut(from_layer=-3), conv(2), conv(4), Shortcut(from_layer=-3), conv(3))
    masks = {0: np.arange(4) < 3, 2: np.arange(4) < 2, 4: np.array([True, False]), 7: np.ones(3, bool)}
    gone = ResidualBlock(shortcut=3, identity=0, feeding=2, branch=(1, 2))
    explanation = explain(graph, "classic", masks, [gone])
    kept = {one.convolutions: one.kept for one in explanation.sets}
    assert kept == {(0, 2, 5): 3, (1,): 0, (4,): 1, (7,): 3}
    assert [one.removed for one in explanation.shortcuts] == [True, False]


@pytest.mark.parametrize(
    ("layers", "text"),
    [((), ""), ((3,), "3"), ((3, 4), "3, 4"), ((3, 4, 5), "3–5"), ((1, 2, 3, 5, 8, 9, 10), "1–3, 5, 8–10")],
)
def test_layer_numbers_in_a_row_are_drawn_together(layers: tuple[int, ...], text: str) -> None:
    assert numbered(layers) == text
