"""The network a recipe starts from, in all the forms in which it may be named."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch

from yolo_dist.config import validate
from yolo_dist.darknet.cfg import Yolo
from yolo_dist.darknet.shapes import count_parameters
from yolo_dist.data.card import Card, find_card
from yolo_dist.data.shards import ShardSet, open_split
from yolo_dist.errors import BundleCorrupt, ConfigError, ModelError, WeightsMismatch
from yolo_dist.model import ModelSource, build_model, check_model


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    tiny.write_cfg(folder)
    tiny.write_shards(folder)
    tiny.make_bundle().save(folder / "bundle")
    return folder


@pytest.fixture(scope="module")
def card(folder: Path) -> Card:
    return find_card(str(folder / "tiny.yaml"))


@pytest.fixture(scope="module")
def train(folder: Path) -> ShardSet:
    return open_split(folder / "shards", "train")


def source(value: Any) -> ModelSource:
    return validate(ModelSource, value, "model")


@pytest.mark.parametrize(
    ("text", "meaning"),
    [
        ("yolov3-tiny", {"zoo": "yolov3-tiny"}),
        ("nets/my.cfg", {"cfg": "nets/my.cfg"}),
        ("s3://bucket/my.cfg", {"cfg": "s3://bucket/my.cfg"}),
        ("runs/hand/stages/base", {"bundle": "runs/hand/stages/base"}),
        ("s3://bucket/base", {"bundle": "s3://bucket/base"}),
    ],
)
def test_a_bare_text_is_a_zoo_name_a_cfg_or_a_bundle(text: str, meaning: dict[str, str]) -> None:
    assert source(text) == source(meaning)


def test_a_folder_in_the_working_directory_is_a_bundle(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    assert source("bundle") == source({"bundle": "bundle"})


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        pytest.param("yolov3tiny", "did you mean yolov3-tiny", id="misspelt"),
        pytest.param("nonsense", r"neither a \.cfg, nor a bundle's folder, nor in the zoo", id="nothing like it"),
        pytest.param({"zoo": "yolov9"}, "not in the zoo, which has yolov3, ", id="not in the zoo"),
        pytest.param({}, "give exactly one of zoo, cfg", id="none"),
        pytest.param({"zoo": "yolov3", "bundle": "x/y"}, "give exactly one of zoo, cfg", id="two"),
        pytest.param({"zoo": "yolov3", "weights": "x.weights"}, "weights need the cfg they belong to", id="weights"),
        pytest.param({"cfg": "x.cfg", "width": 0.5}, "width scales networks of the zoo only", id="width of a cfg"),
        pytest.param({"zoo": "yolov3", "width": 0}, "width: Input should be greater than 0", id="no width"),
        pytest.param({"zoo": "yolov3", "depth": 2}, "depth: unknown key", id="unknown key"),
    ],
)
def test_a_source_that_makes_no_sense_is_refused(value: Any, problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        source(value)


def test_a_network_of_the_zoo_has_the_datasets_classes_and_anchors(card: Card, train: ShardSet) -> None:
    made = card.model_copy(update={"anchors": {6: ((8, 9), (10, 11), (12, 13), (14, 15), (16, 17), (18, 19))}})
    value = source({"zoo": "yolov3-tiny", "width": 0.1})
    published = build_model(value, made, train, (64, 64), 0)
    computed = build_model(value, card, train, (64, 64), 0)
    heads = [[layer for layer in made.network.cfg.layers if isinstance(layer, Yolo)] for made in (published, computed)]
    assert published.classes == ("circle", "square", "triangle")
    assert [head.classes for head in heads[0]] == [3, 3]
    assert heads[0][0].anchors == made.anchors[6]
    # objects of the card are 16 to 32 pixels wide
    assert all(6 < side < 40 for anchor in heads[1][0].anchors for side in anchor)


def test_a_smaller_width_has_fewer_parameters(card: Card, train: ShardSet) -> None:
    counts = [
        count_parameters(
            build_model(source({"zoo": "yolov3-tiny", "width": width}), card, train, (64, 64), 0).network.cfg
        )
        for width in (0.25, 0.1)
    ]
    assert counts[0] > 3 * counts[1]


@pytest.mark.parametrize("value", [{"zoo": "yolov3-tiny", "width": 0.1}, {"cfg": "tiny.cfg"}])
def test_first_weights_depend_on_the_seed_only(
    value: Any, folder: Path, card: Card, train: ShardSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)

    def first_weights(seed: int) -> torch.Tensor:
        torch.rand(3)
        network = build_model(source(value), card, train, (64, 64), seed).network
        return torch.cat([parameter.flatten() for parameter in network.parameters()])

    assert torch.equal(first_weights(1), first_weights(1))
    assert not torch.equal(first_weights(1), first_weights(2))


@pytest.mark.parametrize("form", ["bundle", "pair"])
def test_files_give_the_weights_that_are_in_them(form: str, folder: Path, card: Card, train: ShardSet) -> None:
    pair = {"cfg": str(folder / "tiny.cfg"), "weights": str(folder / "bundle" / "model.weights")}
    value = source(str(folder / "bundle") if form == "bundle" else pair)
    check_model(value, card, (64, 64))
    found = build_model(value, card, train, (64, 64), 0).network.state_dict()
    expected = tiny.make_bundle().network.state_dict()
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_fingerprints_follow_the_files(folder: Path, tmp_path: Path) -> None:
    cfg = tiny.write_cfg(tmp_path)
    before = source(str(cfg)).fingerprints()
    assert before == source(str(folder / "tiny.cfg")).fingerprints()
    cfg.write_text(cfg.read_text() + "\n# another comment\n")
    assert source(str(cfg)).fingerprints() != before
    assert source("yolov3-tiny").fingerprints() == {}
    assert source(str(folder / "bundle")).fingerprints() == {
        "bundle": tiny.make_bundle().save(tmp_path / "b").fingerprint
    }


@pytest.mark.parametrize(
    ("value", "error", "message"),
    [
        pytest.param("{tmp}/nothing", BundleCorrupt, r"nothing: no bundle\.json there", id="no bundle"),
        pytest.param("{tmp}/damaged", BundleCorrupt, r"damaged: model\.weights does not match", id="damaged bundle"),
        pytest.param("{tmp}/nothing.cfg", ModelError, r"nothing\.cfg: cannot be read", id="no cfg"),
        pytest.param(
            {"cfg": "{tmp}/tiny.cfg", "weights": "{tmp}/nothing.weights"},
            ModelError,
            r"nothing\.weights: cannot be read",
            id="no weights",
        ),
        pytest.param(
            {"cfg": "{tmp}/tiny.cfg", "weights": "{tmp}/damaged/model.weights"},
            WeightsMismatch,
            r"model\.weights: holds \d+ float32s, the cfg needs",
            id="truncated weights",
        ),
    ],
)
def test_check_finds_what_would_stop_the_run(
    value: Any, error: type[ModelError], message: str, card: Card, tmp_path: Path
) -> None:
    tiny.write_cfg(tmp_path)
    tiny.make_bundle().save(tmp_path / "damaged")
    weights = tmp_path / "damaged" / "model.weights"
    weights.write_bytes(weights.read_bytes()[:-400])
    fill: Callable[[str], str] = lambda text: text.format(tmp=tmp_path)  # noqa: E731
    filled = fill(value) if isinstance(value, str) else {key: fill(text) for key, text in value.items()}
    with pytest.raises(error, match=message):
        check_model(source(filled), card, (64, 64))


def test_a_model_of_other_classes_is_refused(folder: Path, card: Card) -> None:
    others = card.model_copy(update={"classes": ("circle", "triangle", "square")})
    with pytest.raises(ConfigError, match=r"^dataset tiny: its classes are circle, triangle, square, the model's are"):
        check_model(source(str(folder / "bundle")), others, (64, 64))
    two = card.model_copy(update={"classes": ("circle", "square")})
    with pytest.raises(ModelError, match=r"its heads have 3 classes, the dataset has 2"):
        check_model(source(str(folder / "tiny.cfg")), two, (64, 64))
