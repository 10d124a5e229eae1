"""Commands about one model: train, prune, evaluate, detect, for bundles and Darknet pairs."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import tiny
from command_line import done, refused
from PIL import Image

from yolo_dist.bundle import open_bundle
from yolo_dist.data.shards import open_split


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made")
    tiny.write_cfg(folder)
    tiny.write_shards(folder)
    tiny.make_bundle().save(folder / "bundle")
    (folder / "photos").mkdir()
    for number, sample in enumerate(open_split(folder / "shards", "val")[:2]):
        (folder / "photos" / f"{number}.jpg").write_bytes(sample.image)
    return folder


@pytest.fixture
def folder(made: Path, tmp_path: Path) -> Path:
    """A cfg, a card, its shards, a bundle and two photos."""
    return shutil.copytree(made, tmp_path, dirs_exist_ok=True)


def pair(folder: Path) -> list[object]:
    return ["--cfg", folder / "bundle" / "model.cfg", "--weights", folder / "bundle" / "model.weights"]


def test_train_makes_a_bundle_from_a_cfg_and_goes_on_from_it(folder: Path) -> None:
    data = ["--shards", folder / "shards", "--dataset", folder / "tiny.yaml", "--image-size", "64"]
    quick = ["train.epochs=1", "cluster.workers=0", "--json"]
    (first,) = done("train", *data, "--cfg", folder / "tiny.cfg", "--out", folder / "runs" / "first", *quick).json()
    assert (first["id"], first["kind"], first["cached"]) == ("train", "train", False)
    bundle = folder / "runs" / "first" / "stages" / "train"
    assert open_bundle(bundle).classes == ("circle", "square", "triangle")
    (second,) = done("train", *data, "--model", bundle, "--out", folder / "runs" / "second", *quick).json()
    assert second["parameters"] == first["parameters"]
    assert open_bundle(folder / "runs" / "second" / "initial").network.cfg == open_bundle(bundle).network.cfg


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        (["--image-size", "100"], "--image-size: 100 is no size: 416 or 320x256, multiples of 32"),
        (["--image-size", "large"], "--image-size: large is no size: 416 or 320x256, multiples of 32"),
        (["--model", "a/b", "--cfg", "c.cfg"], "options: give either --model, or --cfg FILE with --weights FILE"),
        (["--warm-start", "nowhere"], "options: nowhere: cannot be read"),
        (["train.epochs=0"], "options: stages.0.epochs: Input should be greater than or equal to 1 (got 0)"),
        (["--model", "yolov5"], "options: model: yolov5 is neither a .cfg, nor a bundle's folder, nor in the zoo"),
    ],
)
def test_wrong_options_of_train_are_named(folder: Path, options: list[str], problem: str) -> None:
    data = ["--shards", folder / "shards", "--dataset", folder / "tiny.yaml", "--out", folder / "run"]
    (error,) = refused("train", *data, *options)
    assert error.startswith(problem)
    assert not (folder / "run").exists()


def test_prune_writes_a_bundle_with_its_plan_and_proof(folder: Path) -> None:
    words = ["prune", "--shards", folder / "shards", "--out", folder / "pruned", "--percent", "0.4", "--force"]
    proof = done(*words, "--model", folder / "bundle", "--json").json()
    del proof["prediction"]
    assert proof["parameters"]["after"] < proof["parameters"]["before"] == 4160
    assert proof["max_abs_difference"] <= proof["tolerance"]
    pruned = open_bundle(folder / "pruned")
    assert sum(parameter.numel() for parameter in pruned.network.parameters()) == proof["parameters"]["after"]
    assert pruned.parent == open_bundle(folder / "bundle").fingerprint
    assert json.loads((folder / "pruned" / "proof.json").read_text()) == proof
    assert "normal" in (folder / "pruned" / "plan.json").read_text()
    out = done(*words, *pair(folder), "--reestimate-images", "8").out
    page = (folder / "pruned" / "proof.md").read_text()
    assert "| parameters | 4,160 |" in page
    assert "| layer | before | after |" in page
    said = [line for line in out.splitlines() if f"- {line}" in page.splitlines()]
    assert said[0].startswith("masked and compact network differ by")
    assert said[1].endswith("of the ideal speed-up")
    assert out.endswith(f"saved to {folder}/pruned\n")


def test_prune_cuts_what_the_chosen_importance_says(folder: Path) -> None:
    """Taylor reads the training split; chance cuts other channels for another seed."""
    words = ["prune", "--model", folder / "bundle", "--shards", folder / "shards", "--percent", "0.3", "--force"]
    plans = []
    for number, options in enumerate(
        (["taylor"], ["taylor"], ["random"], ["random", "--seed", "1"], ["gamma-beta"], ["l1"], ["l2"])
    ):
        done(*words, "--out", folder / f"out{number}", "--importance", *options)
        plans.append(json.loads((folder / f"out{number}" / "plan.json").read_text()))
        assert plans[-1]["importance"] == options[0]
    assert plans[0] == plans[1]
    assert len({json.dumps(plan["layers"]) for plan in plans[1:]}) == 6
    shutil.rmtree(folder / "shards" / "train")
    done(*words, "--out", folder / "without", "--importance", "random")
    (error,) = refused(*words, "--out", folder / "never", "--importance", "taylor")
    assert error.startswith(f"{folder}/shards: split 'train' is not converted")


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        (["--percent", "1"], "options: percent: Input should be less than 1 (got 1.0)"),
        (["--method", "magic"], "options: method: "),
        (["--scope", "all"], "options: scope: "),
        (["--importance", "weight"], "options: importance: unknown importance; there are gamma, gamma-beta, "),
        (["--seed", "-1"], "options: seed: "),
        (["--percent", "0.5"], "percent 0.5 would cut"),
        (["--percent", "0.99", "--force"], "layer 0 would keep 0 of 8 channels at percent 0.99; the largest percent"),
    ],
)
def test_pruning_that_cannot_be_is_refused_and_writes_nothing(folder: Path, options: list[str], problem: str) -> None:
    words = ["prune", "--model", folder / "bundle", "--shards", folder / "shards", "--out", folder / "pruned"]
    (error,) = refused(*words, *options)
    assert error.startswith(problem)
    assert not (folder / "pruned").exists()


def test_prune_predicts_what_a_cut_costs(folder: Path) -> None:
    words = ["prune", "--model", folder / "bundle", "--shards", folder / "shards", "--percent", "0.4"]
    predicted = done(*words, "--dry-run", "--json").json()["prediction"]
    assert [one["percent"] for one in predicted] == [0, 0.1, 0.3, 0.4, 0.5, 0.7, 0.9]
    assert [one["parameters"] for one in predicted] == sorted((one["parameters"] for one in predicted), reverse=True)
    whole = done("evaluate", "--model", folder / "bundle", "--shards", folder / "shards", "--json").json()
    assert (predicted[0]["map50"], predicted[0]["map"]) == (whole["map50"], whole["map"])
    forced = [*words, "--force", "--out", folder / "pruned", "--json"]
    assert done(*forced).json()["prediction"] == predicted
    cut = done("evaluate", "--model", folder / "pruned", "--shards", folder / "shards", "--json").json()
    assert predicted[3]["map50"] == pytest.approx(cut["map50"], abs=1e-6)
    assert done(*forced, "--predict-images", "0").json()["prediction"] == []
    out = done(*words, "--dry-run", "--predict-images", "3").out
    assert "Without fine-tuning, on 3 validation images" in out
    assert len([line for line in out.splitlines() if line.startswith("│ 0")]) == 7


def test_a_refused_cut_names_its_damage_unless_it_shall_not(folder: Path) -> None:
    words = ["prune", "--model", folder / "bundle", "--shards", folder / "shards", "--out", folder / "pruned"]
    (error,) = refused(*words)
    assert "without fine-tuning mAP50 on 6 validation images would be 0.002 instead of 0.039" in error
    (error,) = refused(*words, "--predict-images", "0")
    assert "mAP50" not in error
    (error,) = refused(*words[:-2])
    assert error == "options: give --shards and --out (or --dry-run), or --explain to only look at what may be cut"
    (error,) = refused(*words, "--dry-run", "--predict-images", "0")
    assert error == "options: --dry-run has nothing to do with --predict-images 0"
    assert not (folder / "pruned").exists()


def test_sensitivity_lists_layers_and_leaves_numbers_and_a_plot(folder: Path) -> None:
    words = ["sensitivity", "--shards", folder / "shards", "--out", folder / "sens", "--percents", "0.3,0.6"]
    found = done(*words, "--model", folder / "bundle", "--json").json()
    assert json.loads((folder / "sens" / "sensitivity.json").read_text()) == found
    assert [one["layers"] for one in found["sets"]] == [[0], [1], [3]]
    assert sorted(path.name for path in (folder / "sens").iterdir()) == ["sensitivity.html", "sensitivity.json"]
    out = done(*words, *pair(folder), "--images", "4", "--reestimate-images", "4").out
    assert "mAP50 by percent" in out
    assert "uncut mAP50 is 0.071, on 4 validation images" in out
    assert [line.split("│")[1].strip() for line in out.splitlines() if line.startswith("│")][-1] == "all"
    assert out.endswith(f"saved to {folder}/sens\n")


def test_sensitivity_to_bits_lists_every_layer_that_is_quantised(folder: Path) -> None:
    words = ["sensitivity", "--quantization", "--shards", folder / "shards", "--out", folder / "bits", "--bits", "2,8"]
    words += ["--set", "per_channel=true", "--calibration-images", "4", "--model", folder / "bundle"]
    found = done(*words, "--json").json()
    assert json.loads((folder / "bits" / "sensitivity.json").read_text()) == found
    assert [one["layers"] for one in found["sets"]] == [[0], [1], [3], [4]]
    assert [trial["amount"] for trial in found["together"]["trials"]] == [8, 2]
    assert (folder / "bits" / "sensitivity.html").exists()
    out = done(*words).out
    assert "mAP50 by bits" in out
    assert "float mAP50 is 0.039, on 6 validation images" in out


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        (["--bits", "8"], "options: bits goes with --quantization"),
        (["--set", "scheme=dorefa"], "options: quantization goes with --quantization"),
        (["--quantization", "--percents", "0.5"], "options: percents goes without --quantization"),
        (["--quantization", "--bits", "8,1"], "options: bits.1: Input should be greater than or equal to 2"),
        (["--quantization", "--set", "scheme"], "--set: scheme: reads key=value"),
        (["--quantization", "--set", "scheme=x"], "options: quantization.scheme: unknown scheme"),
        (["--quantization", "--set", "weight_bits=4"], "options: quantization: weight_bits and activation_bits are"),
        (["--percents", "0.3,2"], "options: percents.1: Input should be less than 1"),
        (["--percents", "some"], "options: percents.0: Input should be a valid number"),
        (["--images", "0"], "options: images: Input should be greater than or equal to 1"),
        (["--scope", "all"], "options: scope: "),
    ],
)
def test_wrong_options_of_sensitivity_are_named(folder: Path, options: list[str], problem: str) -> None:
    words = ["sensitivity", "--model", folder / "bundle", "--shards", folder / "shards", "--out", folder / "sens"]
    (error,) = refused(*words, *options)
    assert error.startswith(problem)
    assert not (folder / "sens").exists()


def test_prune_never_replaces_a_folder_of_other_files(folder: Path) -> None:
    words = ["prune", "--model", folder / "bundle", "--shards", folder / "shards", "--out", folder / "photos"]
    (error,) = refused(*words, "--force")
    assert error.startswith(f"{folder}/photos: holds other files")
    assert sorted(path.name for path in (folder / "photos").iterdir()) == ["0.jpg", "1.jpg"]


def test_evaluate_gives_the_same_metrics_for_a_bundle_and_its_darknet_pair(folder: Path) -> None:
    words = ["evaluate", "--shards", folder / "shards", "--json"]
    bundle = done(*words, "--model", folder / "bundle").json()
    assert bundle == done(*words, *pair(folder)).json()
    assert bundle == done(*words, *pair(folder), "--dataset", folder / "tiny.yaml").json()
    assert bundle["images"] == 6
    assert list(bundle["per_class"]) == ["circle", "square", "triangle"]
    assert done(*words, "--model", folder / "bundle", "--split", "train").json()["images"] == 12


def test_evaluate_prints_a_row_a_class(folder: Path) -> None:
    out = done("evaluate", "--shards", folder / "shards", "--model", folder / "bundle", "--image-size", "96x64").out
    rows = [line.split("│")[1].strip() for line in out.splitlines() if line.startswith("│")]
    assert rows == ["circle", "square", "triangle", "all"]
    assert "precision" in out


@pytest.mark.parametrize(
    "options",
    [[], ["--cfg", "a.cfg"], ["--weights", "a.weights"], ["--model", "a", "--cfg", "a.cfg", "--weights", "a.weights"]],
)
@pytest.mark.parametrize("command", ["evaluate", "detect"])
def test_a_model_is_either_a_bundle_or_a_pair(folder: Path, command: str, options: list[str]) -> None:
    words = {
        "evaluate": ["--shards", folder / "shards"],
        "detect": [folder / "photos", "--out", folder / "found"],
    }
    assert refused(command, *words[command], *options) == [
        "options: give either --model BUNDLE, or --cfg FILE --weights FILE"
    ]


def _truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-4])


def _extend(path: Path) -> None:
    path.write_bytes(path.read_bytes() + bytes(4))


@pytest.mark.parametrize(
    ("damage", "problem"),
    [
        pytest.param(
            _truncate, "holds 4239 float32s, the cfg needs 4240: it ends in layer 4 [convolutional]", id="short"
        ),
        pytest.param(_extend, "holds 4241 float32s, the cfg needs 4240: 1 are left after the last layer", id="long"),
        pytest.param(Path.unlink, "cannot be read", id="missing"),
    ],
)
def test_weights_that_do_not_fit_their_cfg_are_refused(
    folder: Path, damage: Callable[[Path], None], problem: str
) -> None:
    weights = folder / "bundle" / "model.weights"
    damage(weights)
    (error,) = refused("evaluate", "--shards", folder / "shards", *pair(folder))
    assert error.startswith(f"{weights}: {problem}")


@pytest.mark.parametrize("name", ["model.cfg", "model.weights"])
@pytest.mark.parametrize("command", ["evaluate", "prune", "detect"])
def test_a_bundle_whose_files_do_not_match_is_refused_by_every_command(folder: Path, name: str, command: str) -> None:
    path = folder / "bundle" / name
    data = bytearray(path.read_bytes())
    data[-2] ^= 1
    path.write_bytes(data)
    words = {
        "evaluate": ["--shards", folder / "shards"],
        "prune": ["--shards", folder / "shards", "--out", folder / "out"],
        "detect": [folder / "photos", "--out", folder / "out"],
    }
    (error,) = refused(command, *words[command], "--model", folder / "bundle")
    assert error.startswith(f"{folder}/bundle: {name} does not match bundle.json")
    assert not (folder / "out").exists()


def test_a_dataset_of_other_classes_is_refused(folder: Path) -> None:
    card = folder / "other.yaml"
    card.write_text(tiny.CARD.replace("circle, square", "square, circle"))
    (error,) = refused("evaluate", "--shards", folder / "shards", *pair(folder), "--dataset", card)
    assert error.startswith(
        f"{folder}/shards: its classes are circle, square, triangle, the model's are square, circle"
    )


def test_detect_leaves_copies_and_a_list_of_boxes(folder: Path) -> None:
    words = ["detect", folder / "photos", "--model", folder / "bundle", "--out", folder / "found"]
    outcome = done(*words, "--confidence", "0", "--json")
    entries = outcome.json()
    assert entries == json.loads((folder / "found" / "detections.json").read_text())
    assert [Path(entry["source"]).name for entry in entries] == ["0.jpg", "1.jpg"]
    assert all((entry["width"], entry["height"]) == (64, 64) for entry in entries)
    labels = {box["label"] for entry in entries for box in entry["boxes"]}
    assert labels <= {"circle", "square", "triangle"}
    assert labels
    assert sorted(path.name for path in (folder / "found").iterdir()) == ["0.jpg", "1.jpg", "detections.json"]
    assert "on 2 images and frames" in done(*words).out


def test_a_bare_pair_without_a_card_numbers_its_classes(folder: Path) -> None:
    words = ["detect", folder / "photos" / "0.jpg", *pair(folder), "--out", folder / "found", "--confidence", "0"]
    labels = {box["label"] for entry in done(*words, "--json").json() for box in entry["boxes"]}
    assert labels
    assert labels <= {"0", "1", "2"}


def test_detect_looks_at_unusual_images_and_names_those_it_skips(folder: Path) -> None:
    photos = folder / "photos"
    Image.new("L", (80, 60), 90).save(photos / "grey.jpg")
    Image.new("CMYK", (80, 60), (1, 2, 3, 4)).save(photos / "cmyk.jpg")
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (80, 60)).save(photos / "turned.jpg", exif=exif)
    (photos / "cut.jpg").write_bytes((photos / "0.jpg").read_bytes()[:-300])
    outcome = done("detect", photos, "--model", folder / "bundle", "--out", folder / "found", "--json")
    sizes = {Path(entry["source"]).name: (entry["width"], entry["height"]) for entry in outcome.json()}
    assert sizes == {
        "0.jpg": (64, 64),
        "1.jpg": (64, 64),
        "cmyk.jpg": (80, 60),
        "grey.jpg": (80, 60),
        "turned.jpg": (60, 80),
    }
    assert "cut.jpg" in outcome.err


def test_detect_draws_on_every_frame_of_a_video(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENCV_FFMPEG_LOGLEVEL", "-8")  # OpenCV reads it once, with the first video of the process
    writer = cv2.VideoWriter(str(folder / "street.mp4"), cv2.VideoWriter.fourcc(*"mp4v"), 5, (64, 64))
    for shade in range(4):
        writer.write(np.full((64, 64, 3), 60 * shade, np.uint8))
    writer.release()
    words = ["detect", folder / "street.mp4", "--model", folder / "bundle", "--out", folder / "found", "--json"]
    assert [entry["frame"] for entry in done(*words).json()] == [0, 1, 2, 3]
    assert [entry["frame"] for entry in done(*words, "--max-frames", "2").json()] == [0, 1]


def test_detect_without_anything_to_look_at_writes_nothing(folder: Path) -> None:
    words = ["--model", folder / "bundle", "--out", folder / "found"]
    assert refused("detect", folder / "nowhere", *words) == [f"{folder}/nowhere: no such file or folder"]
    (error,) = refused("detect", folder / "shards", *words)
    assert error.startswith(f"{folder}/shards: no image or video is there")
    assert not (folder / "found").exists()


def test_a_dataset_beside_a_bundle_must_have_its_classes(folder: Path) -> None:
    words = ["detect", folder / "photos", "--out", folder / "found", "--model", folder / "bundle"]
    (error,) = refused(*words, "--dataset", "bccd")
    assert error.startswith("--dataset bccd: its classes are RBC, WBC, Platelets, the model's are circle, square")
    (error,) = refused(*words, "--dataset", "nosuch")
    assert error.startswith("dataset nosuch: there is no such card")
    done(*words, "--dataset", folder / "tiny.yaml")


@pytest.mark.parametrize("command", ["evaluate", "detect", "prune"])
def test_a_cfg_of_another_input_size_is_refused_by_name(folder: Path, command: str) -> None:
    cfg = folder / "odd.cfg"
    cfg.write_text((folder / "bundle" / "model.cfg").read_text().replace("width=64", "width=50"))
    model = ["--cfg", cfg, "--weights", folder / "bundle" / "model.weights"]
    data = [folder / "photos", "--out", folder / "found"] if command == "detect" else ["--shards", folder / "shards"]
    out = ["--out", folder / "pruned", "--force"] if command == "prune" else []
    (error,) = refused(command, *data, *out, *model)
    assert error.startswith(f"{cfg}: [net] has width=50, height=64, which are no multiples of 32")
    if command != "prune":
        done(command, *data, *model, "--image-size", "64")


def test_a_picture_or_folder_never_replaces_the_other(folder: Path) -> None:
    (folder / "found").write_text("a file")
    (error,) = refused("detect", folder / "photos", "--out", folder / "found", "--model", folder / "bundle")
    assert error.startswith(f"{folder}/found: ")
    assert (folder / "found").read_text() == "a file"
    (error,) = refused("anchors", folder / "shards", "--num", "3", "--out", folder / "photos")
    assert error == f"{folder}/photos: is a folder, where a file shall go; check the path and its permissions"
    (folder / "bundle" / "bundle.json").unlink()
    (folder / "bundle" / "bundle.json").mkdir()
    (error,) = refused("detect", folder / "photos", "--out", folder / "f", "--model", folder / "bundle")
    assert error.startswith(f"{folder}/bundle: no bundle.json there")
