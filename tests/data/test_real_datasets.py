"""The cards that come along, on real files in their datasets' own layouts."""

import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from made_datasets import jpeg
from oxford_hand import write_hands

from yolo_dist.data.annotations import Boxes, clip_boxes
from yolo_dist.data.card import Card, find_card
from yolo_dist.data.conversion.convert import ConvertConfig, convert
from yolo_dist.data.conversion.index import present_splits
from yolo_dist.data.formats import voc_xml
from yolo_dist.data.formats.bdd_json import parse as parse_bdd
from yolo_dist.data.image import decode_image
from yolo_dist.data.manifest import Manifest
from yolo_dist.data.shards import Sample, open_split
from yolo_dist.errors import ConversionError

ALL_MAY_BE_BAD = ConvertConfig(max_bad=1)


@pytest.mark.parametrize(
    ("name", "folder", "split", "images", "kept", "ignored", "rejected"),
    [
        ("bccd", "bccd", "train", 205, 2804, 0, {"zero area": 1}),
        ("bccd", "bccd", "val", 87, 1137, 0, {"zero area": 1}),
        ("coco2017", "coco", "train", 47, 518, 6, {}),
        ("coco2017", "coco", "val", 57, 510, 7, {}),
        ("visdrone", "visdrone", "val", 60, 4501, 163, {}),
        ("bdd100k", "bdd100k", "train", 60, 713, 0, {}),
        ("dior", "dior", "train", 1, 1, 0, {"image missing": 153}),
        ("dior", "dior", "test", 12, 44, 0, {"image missing": 63}),
    ],
)
def test_real_samples_convert_with_their_published_counts(
    shared_data: Path,
    tmp_path: Path,
    name: str,
    folder: str,
    split: str,
    images: int,
    kept: int,
    ignored: int,
    rejected: dict[str, int],
) -> None:
    config = ALL_MAY_BE_BAD if "image missing" in rejected else None
    manifest = convert(find_card(name), shared_data / folder, tmp_path, split, config)
    assert (manifest.images, sum(manifest.boxes.values()), manifest.ignored) == (images, kept, ignored)
    assert manifest.rejected == rejected
    shards = open_split(tmp_path, split)
    shards.verify()
    for sample in shards[::20]:
        image = decode_image(sample.image)
        assert image.shape == (sample.height, sample.width, 3)
        assert (sample.boxes.xyxy >= 0).all()
        assert (sample.boxes.xyxy <= np.tile([sample.width, sample.height], 2)).all()


@pytest.mark.parametrize(
    ("name", "folder", "splits"),
    [
        ("bccd", "bccd", ["train", "val"]),
        ("coco2017", "coco", ["train", "val"]),
        ("visdrone", "visdrone", ["val"]),
        ("bdd100k", "bdd100k", ["train"]),
        ("dior", "dior", ["train", "val", "test"]),
    ],
)
def test_the_splits_of_a_download_are_found(shared_data: Path, name: str, folder: str, splits: list[str]) -> None:
    found = present_splits(find_card(name), shared_data / folder)
    assert [split for split in found if split in splits] == splits


def test_coco_has_crowds_grey_images_and_images_without_objects(shared_data: Path, tmp_path: Path) -> None:
    convert(find_card("coco2017"), shared_data / "coco", tmp_path, "val")
    shards = open_split(tmp_path, "val")
    assert sum(int(sample.boxes.ignore.sum()) for sample in shards) == 7
    assert all(sample.image_id.isdecimal() for sample in shards)
    assert any(not len(sample.boxes) for sample in shards)
    assert any(decode_image(sample.image).std(axis=2).max() == 0 for sample in shards)


def test_dior_reports_the_images_its_lists_name_but_the_disk_does_not_hold(shared_data: Path, tmp_path: Path) -> None:
    card = find_card("dior")
    with pytest.raises(ConversionError, match=r"63 of 75 images are bad.*image missing"):
        convert(card, shared_data / "dior", tmp_path, "test")
    with pytest.raises(ConversionError, match=r"split val: no usable image is left of 102.*image missing"):
        convert(card, shared_data / "dior", tmp_path, "val", ALL_MAY_BE_BAD)
    manifest = convert(card, shared_data / "dior", tmp_path, "test", ALL_MAY_BE_BAD)
    assert (manifest.images, manifest.rejected["image missing"]) == (12, 63)
    assert manifest.examples["image missing"][0].startswith("JPEGImages-test/")


def test_odd_boxes_of_dior_are_rejected_where_they_have_no_area_and_cut_where_they_cross_the_border(
    shared_data: Path,
) -> None:
    classes = find_card("dior").class_numbers()
    reasons: Counter[str] = Counter()
    files = sorted((shared_data / "dior" / "Annotations" / "Horizontal Bounding Boxes").glob("*.xml"))
    for file in files:
        annotation = voc_xml.parse(file.read_bytes().decode(), classes, file.name)
        assert annotation.size == (800, 800)
        _, inside = clip_boxes(annotation.boxes, np.full((len(annotation.boxes), 4), 800, np.float32))
        assert inside.all()
        reasons.update(rejection.reason.value for rejection in annotation.rejected)
        reasons["boxes"] += len(annotation.boxes)
        crossing = (annotation.boxes.xyxy < 0) | (annotation.boxes.xyxy > 800)
        reasons["crossing"] += int(crossing.any(axis=1).sum())
    # Five boxes are a click or a line; one begins at 0 though pixels count from 1, one ends at 802 of 800.
    assert reasons == {"zero area": 5, "crossing": 2, "boxes": 2348}
    assert len(files) == 331


def converted(card: Card, root: Path, destination: Path, split: str = "train") -> tuple[Manifest, list[Sample]]:
    manifest = convert(card, root, destination, split)
    return manifest, list(open_split(destination, split))


@pytest.mark.parametrize(
    "edition", ["labels/bdd100k_labels_images_train.json", "labels/det_20/det_train.json", "labels/100k/train"]
)
def test_every_edition_of_bdd100k_gives_the_same_shards(shared_data: Path, tmp_path: Path, edition: str) -> None:
    root = tmp_path / "bdd100k"
    (root / edition).parent.mkdir(parents=True)
    (root / edition).symlink_to(shared_data / "bdd100k" / edition)
    (root / "images").symlink_to(shared_data / "bdd100k" / "images")
    manifest, samples = converted(find_card("bdd100k"), root, tmp_path / "one")
    _, expected = converted(find_card("bdd100k"), shared_data / "bdd100k", tmp_path / "all")
    assert manifest.boxes == {name: {"car": 603, "person": 110}.get(name, 0) for name in manifest.classes}
    for sample, same in zip(samples, expected, strict=True):
        assert sample.image_id == same.image_id
        np.testing.assert_array_equal(sample.boxes.xyxy, same.boxes.xyxy)
        np.testing.assert_array_equal(sample.boxes.labels, same.boxes.labels)


def test_scalabel_ground_truth_of_a_video_converts_with_its_crowds_ignored(shared_data: Path, tmp_path: Path) -> None:
    file = shared_data / "bdd100k" / "scalabel" / "box_track_ground_truth.json"
    card = find_card("bdd100k")
    frames = list(parse_bdd([file.read_text()], card.class_numbers()))
    for folder in ("images/100k/train", "labels"):
        (tmp_path / "bdd" / folder).mkdir(parents=True)
    for frame in frames:
        path = tmp_path / "bdd" / "images/100k/train" / f"{frame.names[0]}.jpg"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(jpeg(1280, 720))
    shutil.copy(file, tmp_path / "bdd" / card.splits["train"].annotations)
    manifest, samples = converted(card, tmp_path / "bdd", tmp_path / "shards")
    assert (manifest.images, sum(manifest.boxes.values()), manifest.ignored) == (202, 3109, 132)
    assert manifest.boxes["motor"] == 119
    assert samples[0].image_id == "b1c66a42-6f7d68ca/b1c66a42-6f7d68ca-0000001"


@pytest.fixture
def hands(shared_data: Path, tmp_path: Path) -> Path:
    """Oxford Hand's layout, with the real nesting of its files."""
    return write_hands(tmp_path / "hand", (shared_data / "hand" / "Buffy_1.mat").read_bytes())


def test_hands_are_keyed_by_split_because_names_repeat(hands: Path, tmp_path: Path) -> None:
    card = find_card("hand")
    ids = []
    for split in present_splits(card, hands):
        manifest, (sample,) = converted(card, hands, tmp_path / "shards", split)
        assert manifest.boxes == {"hand": 2}
        assert sample.boxes.xyxy.tolist() == [[344.5, 460.5, 386.5, 491.5], [383.5, 448.5, 425.5, 492.5]]
        ids.append(sample.image_id)
    assert ids == ["train/Buffy_1", "val/Buffy_1", "test/Buffy_1"]


def test_a_damaged_hand_annotation_costs_its_image_and_is_named(hands: Path, tmp_path: Path) -> None:
    folder = hands / find_card("hand").splits["val"].annotations
    (folder / "cut.mat").write_bytes((folder / "Buffy_1.mat").read_bytes()[:700])
    (folder.parent / "images" / "cut.jpg").write_bytes(jpeg())
    manifest = convert(find_card("hand"), hands, tmp_path / "shards", "val", ALL_MAY_BE_BAD)
    assert (manifest.images, manifest.rejected) == (1, {"annotation unreadable": 1})
    assert "cut.mat: variable at byte " in manifest.examples["annotation unreadable"][0]


def visdrone_image(tmp_path: Path, text: str) -> tuple[Manifest, Boxes]:
    split = find_card("visdrone").splits["train"]
    for folder, name, content in (
        (split.images, "0000001.jpg", jpeg(2000, 1500)),
        (split.annotations, "0000001.txt", text.encode()),
    ):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / name).write_bytes(content)
    manifest = convert(find_card("visdrone"), tmp_path, tmp_path / "shards", "train", ALL_MAY_BE_BAD)
    return manifest, open_split(tmp_path / "shards", "train")[0].boxes


def test_an_image_keeps_all_of_914_boxes(tmp_path: Path) -> None:
    text = "".join(f"{number % 40 * 30},{number // 40 * 30},20,20,1,{1 + number % 10},0,0\n" for number in range(914))
    manifest, boxes = visdrone_image(tmp_path, text)
    assert (sum(manifest.boxes.values()), len(boxes), manifest.rejected) == (914, 914, {})


@pytest.mark.parametrize(
    ("file", "kept", "ignored", "rejected"),
    [
        ("9999974_00000_d_0000053.txt", 34, 0, {}),
        ("9999985_00000_d_0000020.txt", 28, 1, {"zero area": 1}),
        ("9999999_00590_d_0000267.txt", 100, 4, {"zero area": 1}),
    ],
)
def test_odd_training_annotations_of_visdrone_convert(
    shared_data: Path, tmp_path: Path, file: str, kept: int, ignored: int, rejected: dict[str, int]
) -> None:
    text = (shared_data / "visdrone" / "odd_annotations" / file).read_text()
    manifest, _ = visdrone_image(tmp_path, text)
    assert (sum(manifest.boxes.values()), manifest.ignored, manifest.rejected) == (kept, ignored, rejected)
