"""Bundles: what is saved is read back bit for bit, and what does not match is refused, naming the file."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch

from yolo_dist.bundle import Bundle, open_bundle, open_darknet, read_record, require_classes
from yolo_dist.darknet.weights import load_weights
from yolo_dist.errors import BundleCorrupt, CfgError, ConfigError, ModelError, WeightsMismatch
from yolo_dist.storage import location, sha256

STAGE = {"id": "base", "kind": "train", "config": {"epochs": 3, "autocast": "auto", "multi_scale": [0.5, 1.5]}}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    tiny.make_bundle().save(tmp_path / "bundle")
    return tmp_path / "bundle"


def edit_record(folder: Path, **changes: Any) -> None:
    path = folder / "bundle.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def flip_byte(path: Path, position: int) -> None:
    data = bytearray(path.read_bytes())
    data[position] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("url", ["{tmp}/bundle", "file://{tmp}/bundle", "memory://bundles/{name}"])
def test_a_saved_bundle_is_read_back_bit_for_bit(url: str, tmp_path: Path) -> None:
    url = url.format(tmp=tmp_path, name=tmp_path.name)
    made = tiny.make_bundle()
    made = Bundle(made.network, made.classes, (96, 64), "parent", STAGE, {"map": None, "map50": 0.25})
    saved = made.save(url)
    opened = open_bundle(url)
    assert (opened.classes, opened.image_size) == (made.classes, (96, 64))
    assert (opened.parent, opened.stage, opened.metrics) == (made.parent, made.stage, made.metrics)
    assert opened.fingerprint == saved.fingerprint != ""
    state = opened.network.state_dict()
    assert state.keys() == made.network.state_dict().keys()
    assert all(torch.equal(state[name], value) for name, value in made.network.state_dict().items())


def test_lineage_leads_to_the_first_of_a_chain_and_survives_files(tmp_path: Path) -> None:
    first = tiny.make_bundle()
    layers = len(first.network.layers)
    trained = first.followed_by(first.network)
    assert trained.lineage is None
    assert first.followed_by(first.network, range(layers)).lineage is None
    shorter = trained.followed_by(first.network, [0, None, *range(3, layers)])
    assert shorter.lineage == (0, None, *range(3, layers))
    again = shorter.followed_by(first.network, [0, 1, *range(3, layers - 1)])
    assert again.lineage == (0, None, *range(4, layers))
    assert again.followed_by(first.network).lineage == again.lineage
    again.save(tmp_path / "bundle")
    assert open_bundle(tmp_path / "bundle").lineage == again.lineage


def test_a_bundle_holds_a_plain_darknet_pair_of_its_input_size(folder: Path) -> None:
    saved = open_bundle(folder)
    network = tiny.make_bundle(seed=1).network
    load_weights(network, folder / "model.weights")
    images = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        (expected,), (found,) = saved.network.eval()(images), network.eval()(images)
    assert torch.equal(found, expected)
    pair = open_darknet(folder / "model.cfg", folder / "model.weights", saved.classes)
    assert pair.image_size == saved.image_size
    assert pair.network.cfg == saved.network.cfg


def test_the_record_holds_the_hash_of_both_files(folder: Path) -> None:
    record, _ = read_record(folder)
    assert record.sha256 == {name: sha256(location(folder / name)) for name in ("model.cfg", "model.weights")}


def test_saving_a_bundle_twice_gives_the_same_bytes_and_fingerprint(tmp_path: Path) -> None:
    first, second = (tiny.make_bundle().save(tmp_path / name) for name in ("first", "second"))
    assert first.fingerprint == second.fingerprint
    for name in ("model.cfg", "model.weights", "bundle.json"):
        assert (tmp_path / "first" / name).read_bytes() == (tmp_path / "second" / name).read_bytes()


@pytest.mark.parametrize(
    "change",
    [
        {"network": tiny.make_bundle(seed=1).network},
        {"image_size": (96, 96)},
        {"classes": ("a", "b", "c")},
        {"parent": "other"},
        {"stage": {"id": "base"}},
        {"metrics": {"map50": 0.5}},
    ],
)
def test_another_bundle_has_another_fingerprint(change: dict[str, Any], tmp_path: Path) -> None:
    bundle = tiny.make_bundle()
    assert bundle.save(tmp_path / "a").fingerprint != replace(bundle, **change).save(tmp_path / "b").fingerprint


@pytest.mark.parametrize("name", ["model.cfg", "model.weights"])
@pytest.mark.parametrize("position", [0, 25, -1])
def test_a_flipped_byte_is_found_and_its_file_named(folder: Path, name: str, position: int) -> None:
    flip_byte(folder / name, position)
    with pytest.raises(
        BundleCorrupt, match=rf"^{folder}: {name} does not match bundle\.json .*; copy the whole bundle"
    ):
        open_bundle(folder)


@pytest.mark.parametrize("name", ["model.cfg", "model.weights"])
def test_a_missing_file_is_named(folder: Path, name: str) -> None:
    (folder / name).unlink()
    with pytest.raises(BundleCorrupt, match=rf"^{folder}: {name} is missing"):
        open_bundle(folder)


def test_a_folder_without_a_record_is_no_bundle(tmp_path: Path) -> None:
    with pytest.raises(BundleCorrupt, match=r"no bundle\.json there"):
        open_bundle(tmp_path)
    with pytest.raises(BundleCorrupt, match=r"no bundle\.json there"):
        open_bundle("memory://bundles/nowhere")


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff\xfe", b'{"classes": ["a"]}', b'{"format": 2}'])
def test_a_record_that_is_none_is_refused_in_one_line(folder: Path, content: bytes) -> None:
    (folder / "bundle.json").write_bytes(content)
    with pytest.raises(BundleCorrupt, match=r"bundle\.json: ") as caught:
        open_bundle(folder)
    assert "\n" not in str(caught.value)


def test_paths_in_a_strangers_record_are_not_followed(folder: Path, tmp_path: Path) -> None:
    flip_byte(folder / "model.weights", -1)
    (tmp_path / "other.weights").write_bytes(b"")
    hashes = {name: sha256(location(folder / name)) for name in ("model.cfg",)}
    edit_record(folder, sha256={**hashes, "../other.weights": sha256(location(tmp_path / "other.weights"))})
    with pytest.raises(BundleCorrupt, match=r"model\.weights does not match"):
        open_bundle(folder)


def test_unknown_keys_in_a_record_are_refused(folder: Path) -> None:
    edit_record(folder, run_this="import os")
    with pytest.raises(BundleCorrupt, match="run_this"):
        open_bundle(folder)


@pytest.mark.parametrize("classes", [["circle", "square"], ["a", "b", "c", "d"], []])
def test_a_record_with_another_number_of_classes_than_the_heads_is_refused(folder: Path, classes: list[str]) -> None:
    edit_record(folder, classes=classes)
    with pytest.raises(BundleCorrupt, match=rf"names {len(classes)} classes, the heads of model\.cfg have 3"):
        open_bundle(folder)


def test_a_save_that_fails_leaves_the_old_bundle(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = open_bundle(folder).fingerprint

    def fail(*_: object) -> None:
        raise OSError("disk is full")

    monkeypatch.setattr("yolo_dist.bundle.save_weights", fail)
    with pytest.raises(OSError, match="disk is full"):
        tiny.make_bundle(seed=1).save(folder)
    assert open_bundle(folder).fingerprint == before
    assert [path.name for path in folder.parent.iterdir()] == ["bundle"]


def test_a_dataset_of_other_classes_or_another_order_is_refused() -> None:
    bundle = tiny.make_bundle()
    require_classes(bundle, ("circle", "square", "triangle"), "shards")
    with pytest.raises(ConfigError, match=r"^shards: its classes are square, circle, triangle, the model's are circle"):
        require_classes(bundle, ("square", "circle", "triangle"), "shards")


def test_a_cfg_without_weights_opens_for_training(tmp_path: Path) -> None:
    bundle = open_darknet(tiny.write_cfg(tmp_path), None, ("a", "b", "c"))
    assert (bundle.classes, bundle.image_size, bundle.fingerprint) == (("a", "b", "c"), (64, 64), "")


def test_a_darknet_pair_opens_from_a_url(folder: Path, tmp_path: Path) -> None:
    remote = location(f"memory://pairs/{tmp_path.name}")
    tiny.make_bundle().save(remote)
    bundle = open_darknet(remote / "model.cfg", str(remote / "model.weights"), ("a", "b", "c"))
    assert torch.equal(bundle.network.layers[0].conv.weight, open_bundle(folder).network.layers[0].conv.weight)  # type: ignore[union-attr, arg-type]


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        pytest.param(
            lambda data: data[:-4], WeightsMismatch, r"float32s, the cfg needs \d+: it ends in layer 4", id="short"
        ),
        pytest.param(lambda data: data + bytes(8), WeightsMismatch, "2 are left after the last layer", id="long"),
        pytest.param(lambda data: data[:-1], WeightsMismatch, "float32", id="cut inside a number"),
        pytest.param(lambda data: data[:10], WeightsMismatch, "header", id="cut inside the header"),
        pytest.param(lambda data: data[:0], WeightsMismatch, "header", id="empty"),
    ],
)
def test_weights_that_do_not_fit_are_refused(
    folder: Path, change: Callable[[bytes], bytes], error: type[ModelError], message: str
) -> None:
    weights = folder / "model.weights"
    weights.write_bytes(change(weights.read_bytes()))
    with pytest.raises(error, match=rf"^{weights}: .*{message}"):
        open_darknet(folder / "model.cfg", weights, ("a", "b", "c"))


def test_a_cfg_for_another_number_of_classes_is_refused(tmp_path: Path) -> None:
    cfg = tiny.write_cfg(tmp_path)
    with pytest.raises(ModelError, match=rf"^{cfg}: its heads have 3 classes, the dataset has 2"):
        open_darknet(cfg, None, ("a", "b"))


def test_a_cfg_without_heads_is_no_detector(tmp_path: Path) -> None:
    cfg = tmp_path / "headless.cfg"
    cfg.write_text(tiny.CFG.partition("[yolo]")[0])
    with pytest.raises(ModelError, match=rf"^{cfg}: has no \[yolo\] layer"):
        open_darknet(cfg, None, ("a",))


def test_a_malformed_cfg_is_refused_with_its_line(tmp_path: Path) -> None:
    cfg = tmp_path / "wrong.cfg"
    cfg.write_text(tiny.CFG.replace("filters=16", "filters=many", 1))
    line = tiny.CFG[: tiny.CFG.index("filters=16")].count("\n") + 1
    with pytest.raises(CfgError, match=rf"^{cfg}:{line}: \[convolutional\] filters"):
        open_darknet(cfg, None, ("a", "b", "c"))


def test_a_missing_pair_is_named(tmp_path: Path) -> None:
    with pytest.raises(CfgError, match=r"nothing\.cfg: cannot be read"):
        open_darknet(tmp_path / "nothing.cfg", None, ("a",))
    with pytest.raises(ModelError, match=r"nothing\.weights: cannot be read"):
        open_darknet(tiny.write_cfg(tmp_path), tmp_path / "nothing.weights", ("a", "b", "c"))
