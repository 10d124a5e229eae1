"""Cfg files: what is read, what is refused and where, and that writing loses nothing."""

import contextlib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from yolo_dist.darknet.cfg import (
    Avgpool,
    Cfg,
    Convolutional,
    Depthwise,
    Dropout,
    Layer,
    Maxpool,
    Net,
    Route,
    Shortcut,
    SqueezeExcite,
    Upsample,
    Yolo,
    absolute,
    format_cfg,
    parse_cfg,
    read_cfg,
    sources,
)
from yolo_dist.darknet.zoo import ZOO, zoo_cfg
from yolo_dist.errors import CfgError

NET = "[net]\nwidth=64\nheight=32\n"
CONV = "[convolutional]\nfilters=8\n"


def test_spacing_comments_line_ends_and_names_of_net_do_not_matter() -> None:
    plain = parse_cfg(NET + "momentum=0.9\n[convolutional]\nfilters=16\nsize=3\npad=1\n[route]\nlayers=-1,0\n")
    messy = parse_cfg(
        "# a comment\r\n; another\r\n\r\n  [network]  # input\r\nwidth = 64\r\n\theight=32;px\r\nmomentum = 0.9\r\n"
        "[convolutional]\r\n  size = 3\r\nfilters= 16 # many\r\npad =1\r\n\r\n\r\n[ route ]\r\nlayers =  -1 , 0"
    )
    assert messy == plain
    assert format_cfg(messy) == format_cfg(plain)


def test_defaults_are_darknets_and_are_not_written() -> None:
    cfg = parse_cfg(NET + "[conv]\n[max]\n[shortcut]\nfrom=0")
    assert cfg.layers == (
        Convolutional(filters=1, size=1, stride=1, pad=False, groups=1, activation="logistic"),
        Maxpool(stride=1),
        Shortcut(from_layer=(0,), activation="linear"),
    )
    assert format_cfg(cfg) == "[net]\nwidth=64\nheight=32\n\n[convolutional]\n\n[maxpool]\n\n[shortcut]\nfrom=0\n"


def test_keys_of_darknets_training_are_preserved_in_their_order() -> None:
    text = (
        NET + CONV + "stopbackward=1\n[convolutional]\nfilters=6\n[yolo]\nanchors=1,2\nclasses=1\njitter=.3\nrandom=1\n"
    )
    cfg = parse_cfg(text)
    assert cfg.layers[-1].training == (("jitter", ".3"), ("random", "1"))
    assert cfg.layers[-1].training_option("jitter") == ".3"
    assert cfg.layers[-1].training_option("iou_loss") is None
    assert parse_cfg(format_cfg(cfg)).layers[-1].training == cfg.layers[-1].training


@pytest.mark.parametrize(
    ("text", "message"),
    [
        pytest.param("", r"x\.cfg:1: the first section must be \[net\]", id="empty file"),
        pytest.param(CONV, r":1: the first section must be \[net\]", id="no net"),
        pytest.param(NET, r":1: \[net\] is followed by no layers", id="no layers"),
        pytest.param("width=3\n" + NET, r":1: width stands before the first section", id="key before a section"),
        pytest.param(NET + "[lstm]\n", r":4: \[lstm\] unknown section; known are", id="unknown section"),
        pytest.param(NET + "[convolutionl]\n", r":4: .*did you mean convolutional\?", id="misspelt section"),
        pytest.param(NET + CONV + NET, r":6: \[net\] a second one", id="second net"),
        pytest.param(
            NET + CONV + "sise=3\n", r":6: \[convolutional\] sise: unknown key; did you mean size\?", id="key"
        ),
        pytest.param(NET + CONV + "size\n", r":6: expected \[section\] or key=value, got 'size'", id="no equals sign"),
        pytest.param(NET + CONV + "=3\n", r":6: expected \[section\] or key=value", id="no key"),
        pytest.param(NET + "[convolutional\n", r":4: expected \[section\]", id="unclosed section"),
        pytest.param(NET + CONV + "size=3\nsize=1", r":7: .*size: was set before, in line 6", id="duplicate key"),
        pytest.param(NET + CONV + "size=big", r":6: .*size: .*integer.*\(got 'big'\)", id="not a number"),
        pytest.param(NET + CONV + "size=", r":6: .*size: .*integer", id="no value"),
        pytest.param(NET + CONV + "stride=0", r":6: .*stride: .*greater than 0", id="zero stride"),
        pytest.param(NET + "[conv]\nfilters=999999999", r":5: .*filters: .*less than", id="absurd width"),
        pytest.param(NET + CONV + "batch_normalize=2", r":6: .*batch_normalize: must be 0 or 1", id="flag"),
        pytest.param(NET + CONV + "activation=gelu", r":6: .*activation: .*'leaky'", id="unknown activation"),
        pytest.param(NET + CONV + "dilation=2\nsize=3", r":4: \[convolutional\] dilation needs", id="dilation"),
        pytest.param(NET + CONV + "binary=1", r":6: .*binary: unknown key", id="forward key not implemented"),
        pytest.param("[net]\nwidth=32\n[conv]\n", r":1: \[net\] required key height is missing", id="missing key"),
        pytest.param(NET + CONV + "[route]\nlayers=-1,", r":7: .*layers: .*\(got '-1,'\)", id="empty list item"),
        pytest.param(NET + CONV + "[route]\nlayers=-2", r":6: \[route\] reads layer -1", id="before the first layer"),
        pytest.param(NET + CONV + "[route]\nlayers=1", r":6: \[route\] reads layer 1, but only", id="itself"),
        pytest.param(NET + CONV + "[shortcut]\nfrom=5", r":6: \[shortcut\] reads layer 5", id="forward reference"),
        pytest.param(NET + "[shortcut]\nfrom=-1", r":4: \[shortcut\] reads layer -1", id="shortcut first"),
        pytest.param(NET + CONV + "[route]\nlayers=0\ngroups=2\ngroup_id=2", r":6: .*group_id 2", id="absent group"),
        pytest.param(NET + CONV + "[shortcut]\nfrom=-1\nweights_type=per_feature", r":8: .*weights_type", id="weights"),
        pytest.param(NET + CONV + "[maxpool]\nsize=2\npadding=4", r":6: .*padding 4 leaves", id="pool of nothing"),
        pytest.param(NET + "[yolo]\nanchors=1,2", r"layer 0 \[yolo\]: a head cannot be the first", id="yolo first"),
        pytest.param(NET + CONV + "[yolo]\nanchors=1,2,3", r":7: .*3 numbers do not make", id="odd anchors"),
        pytest.param(NET + CONV + "[yolo]\nanchors=1,-2", r":7: .*greater than 0", id="negative anchor"),
        pytest.param(NET + CONV + "[yolo]\nanchors=1,nan", r":7: .*anchors: .*finite", id="anchor that is no number"),
        pytest.param(NET + CONV + "[yolo]\nanchors=1,2\nnum=3", r":6: .*num is 3, but there are 1", id="num"),
        pytest.param(NET + CONV + "[yolo]\nanchors=1,2\nmask=1", r":6: .*mask names anchor 1", id="mask"),
        pytest.param(NET + CONV + "[yolo]\nanchors=1,2\nnew_coords=1", r":8: .*only 0 is implemented", id="new_coords"),
        pytest.param(
            NET + CONV + "[yolo]\nanchors=1,2\n[dropout]", r":8: \[dropout\] reads layer 1, a yolo", id="boxes"
        ),
    ],
)
def test_a_wrong_cfg_is_refused_with_file_line_and_key(text: str, message: str) -> None:
    with pytest.raises(CfgError, match=message) as error:
        parse_cfg(text, "x.cfg")
    assert str(error.value).startswith("x.cfg:")
    assert "\n" not in str(error.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(CfgError, match=r"absent\.cfg: cannot be read \(No such file"):
        read_cfg(tmp_path / "absent.cfg")


def test_a_byte_order_mark_and_foreign_comments_are_read(tmp_path: Path) -> None:
    path = tmp_path / "old.cfg"
    path.write_bytes(b"\xef\xbb\xbf# Gr\xfc\xdfe \xc4\xe3\n" + (NET + CONV).encode())
    assert read_cfg(path).layers == (Convolutional(filters=8),)
    assert read_cfg(path).source == str(path)


@pytest.mark.parametrize(
    ("index", "layer", "expected"),
    [(-4, 20, 16), (0, 20, 0), (7, 20, 7), (-1, 1, 0)],
)
def test_negative_references_count_back_and_others_are_absolute(index: int, layer: int, expected: int) -> None:
    assert absolute(index, layer) == expected


@pytest.mark.parametrize(
    ("layer", "index", "expected"),
    [
        pytest.param(Convolutional(), 0, (), id="the first layer reads the image"),
        pytest.param(Upsample(), 5, (4,), id="most read the previous one"),
        pytest.param(Route(layers=(-1, 0)), 5, (4, 0), id="a route reads only what it lists"),
        pytest.param(Shortcut(from_layer=(-3, 1)), 5, (4, 2, 1), id="a shortcut reads the previous one too"),
    ],
)
def test_sources(layer: Layer, index: int, expected: tuple[int, ...]) -> None:
    assert sources(layer, index) == expected


def test_replacing_layers_checks_references_again() -> None:
    cfg = parse_cfg(NET + CONV + CONV + "[route]\nlayers=-1,-2", "x.cfg")
    with pytest.raises(CfgError, match=r"x\.cfg: layer 1 \[route\]: reads layer -1"):
        cfg.with_layers(cfg.layers[1:])
    assert cfg.with_size((96, 128)).size == (96, 128)


@pytest.mark.parametrize("name", ZOO)
def test_writing_a_zoo_cfg_and_reading_it_is_the_identity(name: str) -> None:
    cfg = zoo_cfg(name, classes=3)
    assert parse_cfg(format_cfg(cfg)) == cfg


def test_the_yolo_fastest_cfg_survives_a_round_trip(shared_data: Path) -> None:
    cfg = read_cfg(shared_data / "weights" / "yolo-fastest-1.1.cfg")
    assert parse_cfg(format_cfg(cfg)) == cfg
    assert len(cfg.head_convolutions) == 2


counts = st.integers(1, 64)
flags = st.booleans()
activations = st.sampled_from(["linear", "leaky", "relu", "relu6", "h_swish", "mish", "swish", "logistic"])
texts = st.text("abcxyz0123456789.,-", min_size=1, max_size=8)
positive = st.floats(1e-3, 1e6)


def some(cls: type[Any], **keys: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """`cls` with any subset of `keys` set."""
    return st.fixed_dictionaries({}, optional=keys).map(lambda values: cls(**values))


def layer_at(index: int) -> st.SearchStrategy[Layer]:
    kernel = {"filters": counts, "size": counts, "stride": counts, "batch_normalize": flags, "pad": flags}
    plain = [
        some(Convolutional, **kernel, groups=counts, activation=activations, padding=counts),
        some(Depthwise, **kernel, activation=activations),
        st.builds(SqueezeExcite, filters=counts, reduction=counts, hidden=counts),
        some(Maxpool, size=counts, stride=counts),
        st.just(Avgpool()),
        some(Upsample, stride=counts),
        some(Dropout, probability=st.floats(0, 0.99)),
    ]
    if index == 0:
        return st.one_of(plain)
    references = st.lists(st.integers(-index, index - 1), min_size=1, max_size=4).map(tuple)
    return st.one_of(
        *plain,
        st.builds(Route, layers=references, groups=st.just(2), group_id=st.integers(0, 1)),
        st.builds(Shortcut, from_layer=references, activation=activations),
    )


heads = st.integers(1, 5).flatmap(
    lambda num: st.builds(
        Yolo,
        anchors=st.lists(st.tuples(positive, positive), min_size=num, max_size=num).map(tuple),
        num=st.just(num),
        mask=st.lists(st.integers(0, num - 1), min_size=1, max_size=3).map(tuple),
        classes=counts,
        scale_x_y=positive,
        training=st.lists(st.tuples(st.sampled_from(["jitter", "random"]), texts), unique_by=lambda x: x[0]).map(tuple),
    )
)
cfgs = st.builds(
    lambda net, layers, head: Cfg(net, (*layers, head)),
    st.builds(Net, width=counts, height=counts, channels=counts),
    st.integers(1, 8).flatmap(lambda n: st.tuples(*(layer_at(index) for index in range(n)))),
    heads,
)


@settings(deadline=None, max_examples=200)
@given(cfgs)
def test_writing_any_cfg_and_reading_it_is_the_identity(cfg: Cfg) -> None:
    again = parse_cfg(format_cfg(cfg))
    assert again == cfg
    assert format_cfg(again) == format_cfg(cfg)


lines = st.one_of(
    st.sampled_from(["[net]", "[conv]", "[route]", "[yolo]", "[shortcut]", "[se]", "[maxpool]", "width=8", "height=8"]),
    st.builds(
        "{}={}".format, st.sampled_from(["layers", "from", "size", "anchors", "mask", "pad", "filters"]), st.text()
    ),
    st.text(),
)


@settings(deadline=None, max_examples=300)
@given(st.lists(lines).map("\n".join))
def test_random_lines_raise_nothing_but_cfg_errors(text: str) -> None:
    with contextlib.suppress(CfgError):
        cfg = parse_cfg(text)
        assert parse_cfg(format_cfg(cfg)) == cfg


@settings(deadline=None, max_examples=100)
@given(data=st.binary(max_size=200))
def test_random_bytes_are_a_cfg_error(data: bytes, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.getbasetemp() / "random.cfg"
    path.write_bytes(data)
    with pytest.raises(CfgError, match=r"random\.cfg:\d+: "):
        read_cfg(path)
