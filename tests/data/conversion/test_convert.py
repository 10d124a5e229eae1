"""Conversion: good data completely, single mistakes counted, bad data not at all."""

import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from made_datasets import (
    coco_card,
    coco_dataset,
    good_yolo_dataset,
    jpeg,
    voc_card,
    voc_dataset,
    yolo_card,
    yolo_dataset,
)

from yolo_dist.data.card import SplitSource, find_card
from yolo_dist.data.conversion.convert import ConvertConfig, convert
from yolo_dist.data.conversion.index import present_splits
from yolo_dist.data.shards import converted_splits, open_split
from yolo_dist.errors import AnnotationError, ConfigError, ConversionError, DataError

ALLOW_ALL = ConvertConfig(max_bad=1)


def hashes(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.iterdir())}


def test_fractions_become_pixels_of_the_real_image(tmp_path: Path) -> None:
    source = yolo_dataset(tmp_path / "in", {"a": jpeg(60, 40)}, {"a": "1 0.5 0.5 0.5 0.25"})
    convert(yolo_card(), source, tmp_path / "out", "train")
    (sample,) = open_split(tmp_path / "out", "train")
    assert (sample.image_id, sample.width, sample.height) == ("a", 60, 40)
    assert sample.boxes.xyxy.tolist() == [[15, 15, 45, 25]]
    assert sample.boxes.labels.tolist() == [1]


def test_the_same_files_give_the_same_bytes_wherever_they_lie(tmp_path: Path) -> None:
    config = ConvertConfig(shard_bytes=5000)
    for place in ("here", "there"):
        convert(yolo_card(), good_yolo_dataset(tmp_path / place), tmp_path / f"out-{place}", "train", config)
    first = hashes(tmp_path / "out-here" / "train")
    assert len(first) > 4
    assert first == hashes(tmp_path / "out-there" / "train")


def test_the_manifest_counts_what_the_shards_hold(tmp_path: Path) -> None:
    manifest = convert(
        yolo_card(), good_yolo_dataset(tmp_path / "in"), tmp_path / "out", "train", ConvertConfig(shard_bytes=5000)
    )
    shards = open_split(tmp_path / "out", "train")
    labels = np.concatenate([sample.boxes.labels for sample in shards])
    assert manifest == shards.manifest
    assert manifest.images == len(shards) == sum(record.rows for record in manifest.shards) == 40
    assert manifest.boxes == {"cat": (labels == 0).sum(), "dog": (labels == 1).sum()} == {"cat": 40, "dog": 20}
    assert [record.file for record in manifest.shards] == [f"shard-{n:05d}.arrow" for n in range(len(manifest.shards))]


def test_progress_ends_at_the_number_of_images(tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    config = ConvertConfig(shard_bytes=5000)
    convert(
        yolo_card(), good_yolo_dataset(tmp_path / "in"), tmp_path / "out", "train", config, lambda *at: seen.append(at)
    )
    assert seen == sorted(seen)
    assert seen[-1] == (40, 40)


def test_an_image_without_a_text_file_has_no_objects(tmp_path: Path) -> None:
    source = yolo_dataset(tmp_path / "in", {"a": jpeg(), "b": jpeg()}, {"a": "0 0.5 0.5 0.5 0.5"})
    convert(yolo_card(), source, tmp_path / "out", "train")
    assert [len(sample.boxes) for sample in open_split(tmp_path / "out", "train")] == [1, 0]


@pytest.mark.parametrize(
    "entry", ["images/sub/a.jpg", "./images/sub/a.jpg", "/home/me/old/images/sub/a.jpg", "sub/a.jpg", "sub/a"]
)
def test_list_entries_are_understood_as_names_or_paths(tmp_path: Path, entry: str) -> None:
    source = yolo_dataset(tmp_path / "in", {"sub/a": jpeg(), "sub/b": jpeg()}, {"sub/a": "0 0.5 0.5 0.5 0.5"})
    (source / "train.txt").write_text(f"{entry}\n\n")
    card = yolo_card(splits={"train": SplitSource(images="images", annotations="labels", list="train.txt")})
    convert(card, source, tmp_path / "out", "train")
    (sample,) = open_split(tmp_path / "out", "train")
    assert (sample.image_id, len(sample.boxes)) == ("sub/a", 1)


def test_voc_lists_with_windows_line_ends_are_read(tmp_path: Path) -> None:
    convert(voc_card(), voc_dataset(tmp_path / "in", ["b", "a"]), tmp_path / "out", "train")
    shards = open_split(tmp_path / "out", "train")
    assert [sample.image_id for sample in shards] == ["b", "a"]
    assert shards[0].boxes.xyxy.tolist() == [[10, 5, 30, 20]]


def test_coco_keeps_crowds_as_ignored_and_images_without_annotations(tmp_path: Path) -> None:
    annotations = [
        {"image_id": 2, "category_id": 18, "bbox": [5, 5, 20, 10], "iscrowd": 0},
        {"image_id": 2, "category_id": 17, "bbox": [1, 1, 70, 10], "iscrowd": 1},
    ]
    source = coco_dataset(tmp_path / "in", {"x.jpg": jpeg(), "y.jpg": jpeg(seed=1)}, annotations)
    manifest = convert(coco_card(), source, tmp_path / "out", "train")
    empty, full = open_split(tmp_path / "out", "train")
    assert (empty.image_id, len(empty.boxes)) == ("1", 0)
    assert full.boxes.xyxy.tolist() == [[5, 5, 25, 15], [1, 1, 60, 11]]
    assert full.boxes.ignore.tolist() == [False, True]
    assert (manifest.boxes, manifest.ignored) == ({"cat": 0, "dog": 1}, 1)


def truncated(source: Path) -> None:
    path = source / "images" / "007.jpg"
    path.write_bytes(path.read_bytes()[:-50])


def not_an_image(source: Path) -> None:
    (source / "images" / "007.jpg").write_bytes(b"<html>404</html>")


def unknown_class(source: Path) -> None:
    (source / "labels" / "007.txt").write_text("0 0.5 0.5 0.5 0.5\n9 0.5 0.5 0.5 0.5\n")


def zero_area(source: Path) -> None:
    (source / "labels" / "007.txt").write_text("0 0.5 0.5 0.5 0.5\n0 0.5 0.5 0 0.5\n")


def outside(source: Path) -> None:
    (source / "labels" / "007.txt").write_text("0 0.5 0.5 0.5 0.5\n0 1.5 0.5 0.5 0.5\n")


def not_text(source: Path) -> None:
    (source / "labels" / "007.txt").write_bytes(b"0 0.5 \xff\xfe")


@pytest.mark.parametrize(
    ("damage", "reason", "example", "images"),
    [
        (truncated, "image unreadable", "images/007.jpg: truncated after", 39),
        (not_an_image, "image unreadable", "images/007.jpg: not an image (16 bytes)", 39),
        (not_text, "annotation unreadable", "labels/007.txt: byte 6 is not UTF-8", 39),
        (unknown_class, "unknown class", "labels/007.txt:2: class 9 is not in the card", 40),
        (zero_area, "zero area", "labels/007.txt:2: box", 40),
        (outside, "outside the image", "images/007.jpg: box 75,10,105,30 is outside the image, 60×40", 40),
    ],
)
def test_a_single_mistake_is_counted_listed_and_skipped(
    tmp_path: Path, damage: Callable[[Path], None], reason: str, example: str, images: int
) -> None:
    source = good_yolo_dataset(tmp_path / "in")
    damage(source)
    manifest = convert(yolo_card(), source, tmp_path / "out", "train")
    assert manifest.rejected == {reason: 1}
    assert example in manifest.examples[reason][0]
    assert manifest.images == len(open_split(tmp_path / "out", "train")) == images


def test_missing_images_are_listed_and_fail_only_above_the_limit(tmp_path: Path) -> None:
    source = voc_dataset(tmp_path / "in", [f"{n:02d}" for n in range(10)])
    (source / "JPEGImages" / "03.jpg").unlink()
    with pytest.raises(ConversionError, match=r"1 of 10 images are bad, more than 5%.*JPEGImages/03: image missing"):
        convert(voc_card(), source, tmp_path / "out", "train")
    manifest = convert(voc_card(), source, tmp_path / "out", "train", ConvertConfig(max_bad=0.1))
    assert (manifest.images, manifest.rejected) == (9, {"image missing": 1})


def test_a_cut_xml_file_costs_its_image_and_is_named_with_the_line(tmp_path: Path) -> None:
    source = voc_dataset(tmp_path / "in", ["a", "b"])
    (source / "Annotations" / "b.xml").write_text("<annotation>\n<object>")
    manifest = convert(voc_card(), source, tmp_path / "out", "train", ALLOW_ALL)
    assert manifest.images == 1
    assert "Annotations/b.xml:2: column 9: not well-formed XML" in manifest.examples["annotation unreadable"][0]


def test_a_missing_xml_file_costs_its_image(tmp_path: Path) -> None:
    source = voc_dataset(tmp_path / "in", ["a", "b"])
    (source / "Annotations" / "b.xml").unlink()
    manifest = convert(voc_card(), source, tmp_path / "out", "train", ALLOW_ALL)
    assert "b.xml: no such file" in manifest.examples["annotation unreadable"][0]


def test_a_cut_coco_file_is_refused_with_its_place_and_leaves_nothing(tmp_path: Path) -> None:
    source = coco_dataset(tmp_path / "in", {"x.jpg": jpeg()}, [])
    path = source / "annotations" / "train.json"
    path.write_text(path.read_text()[:-30])
    with pytest.raises(AnnotationError, match=rf"train\.json:1: byte {len(path.read_bytes())}: "):
        convert(coco_card(), source, tmp_path / "out", "train")
    assert not (tmp_path / "out").exists()


def test_an_annotation_of_an_unlisted_coco_image_counts_as_a_missing_image(tmp_path: Path) -> None:
    orphan = {"image_id": 99, "category_id": 17, "bbox": [1, 1, 5, 5]}
    source = coco_dataset(tmp_path / "in", {"x.jpg": jpeg()}, [orphan])
    manifest = convert(coco_card(), source, tmp_path / "out", "train", ALLOW_ALL)
    assert manifest.examples == {"image missing": ("photos/image 99: image missing",)}


def all_classes_unknown(source: Path) -> None:
    for path in (source / "labels").iterdir():
        path.write_text("7 0.5 0.5 0.5 0.5")


def all_images_cut(source: Path) -> None:
    for path in (source / "images").iterdir():
        path.write_bytes(path.read_bytes()[:-50])


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (all_classes_unknown, r"40 of 40 boxes are bad, more than 5%.*labels/000\.txt:1: class 7"),
        (all_images_cut, r"40 of 40 images are bad, more than 5%.*images/000\.jpg: truncated"),
    ],
)
def test_bad_data_is_refused_in_one_line_and_leaves_nothing(
    tmp_path: Path, damage: Callable[[Path], None], message: str
) -> None:
    source = good_yolo_dataset(tmp_path / "in")
    damage(source)
    with pytest.raises(ConversionError, match=message) as caught:
        convert(yolo_card(), source, tmp_path / "out", "train")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_nothing_left_is_an_error_even_where_everything_is_allowed(tmp_path: Path) -> None:
    source = good_yolo_dataset(tmp_path / "in", 2)
    all_images_cut(source)
    with pytest.raises(ConversionError, match="no usable image is left"):
        convert(yolo_card(), source, tmp_path / "out", "train", ALLOW_ALL)


def test_a_finished_conversion_is_replaced_only_on_request(tmp_path: Path) -> None:
    source = good_yolo_dataset(tmp_path / "in", 5)
    convert(yolo_card(), source, tmp_path / "out", "train")
    (source / "images" / "000.jpg").unlink()
    with pytest.raises(ConversionError, match="is converted already"):
        convert(yolo_card(), source, tmp_path / "out", "train")
    assert len(open_split(tmp_path / "out", "train")) == 5
    convert(yolo_card(), source, tmp_path / "out", "train", ConvertConfig(overwrite=True))
    assert len(open_split(tmp_path / "out", "train")) == 4


def test_a_replacement_that_fails_leaves_the_old_conversion(tmp_path: Path) -> None:
    source = good_yolo_dataset(tmp_path / "in", 5)
    convert(yolo_card(), source, tmp_path / "out", "train")
    all_images_cut(source)
    with pytest.raises(ConversionError):
        convert(yolo_card(), source, tmp_path / "out", "train", ConvertConfig(overwrite=True))
    open_split(tmp_path / "out", "train").verify()
    assert converted_splits(tmp_path / "out") == ["train"]


def test_duplicate_image_ids_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="image id 'a' occurs 2 times"):
        convert(voc_card(), voc_dataset(tmp_path / "in", ["a", "b", "a"]), tmp_path / "out", "train")


def test_two_files_of_one_name_are_refused(tmp_path: Path) -> None:
    source = good_yolo_dataset(tmp_path / "in", 3)
    (source / "images" / "001.png").write_bytes(jpeg())
    with pytest.raises(DataError, match=r"001\.png: 001\.jpg has the same name"):
        convert(yolo_card(), source, tmp_path / "out", "train")


@pytest.mark.parametrize("missing", ["images", "annotations", "list"])
def test_a_source_that_is_not_the_dataset_is_refused_by_name(tmp_path: Path, missing: str) -> None:
    source = voc_dataset(tmp_path / "in", ["a"])
    with pytest.raises(DataError, match=r"in/elsewhere: no such (file|folder); the source must be the root"):
        convert(voc_card(**{missing: "elsewhere"}), source, tmp_path / "out", "train")


def test_a_folder_without_images_is_refused(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "labels").mkdir()
    with pytest.raises(DataError, match="images: no images"):
        convert(yolo_card(), tmp_path, tmp_path / "out", "train")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": "shapes"}, "needs the key generate"),
        ({"format": "yolo"}, "did you mean yolo_txt"),
        ({"splits": {"val": SplitSource()}}, "no split 'train'; choose from val"),
        (
            {"format": "shapes", "splits": {"train": SplitSource.model_validate({"generate": {"seed": 1}})}},
            "classes must be circle, square, triangle",
        ),
    ],
)
def test_a_card_that_does_not_fit_is_refused(tmp_path: Path, changes: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        convert(yolo_card(**changes), good_yolo_dataset(tmp_path / "in", 2), tmp_path / "out", "train")


def test_splits_whose_files_are_there_are_found(tmp_path: Path) -> None:
    source = voc_dataset(tmp_path / "in", ["a"])
    places = voc_card().splits["train"]
    other = places.model_copy(update={"list": "test.txt"})
    card = voc_card().model_copy(update={"splits": {"test": other, "train": places}})
    assert present_splits(card, source) == ["train"]
    (source / "train.txt").unlink()
    with pytest.raises(DataError, match=r"test\.txt: no such file"):
        present_splits(card, source)
    assert present_splits(find_card("shapes"), "-") == ["train", "val"]


def test_a_dataset_may_lie_in_a_folder_of_its_own(tmp_path: Path) -> None:
    """As a clone or an archive has it."""
    voc_dataset(tmp_path / "in" / "VOC", ["a"])
    (tmp_path / "in" / "scripts").mkdir()
    assert present_splits(voc_card(), tmp_path / "in") == ["train"]
    inside = convert(voc_card(), tmp_path / "in", tmp_path / "one", "train")
    assert inside == convert(voc_card(), tmp_path / "in" / "VOC", tmp_path / "two", "train")
    voc_dataset(tmp_path / "in" / "another", ["a"])
    with pytest.raises(DataError, match=r"in/JPEGImages: no such"):
        present_splits(voc_card(), tmp_path / "in")


def test_conversion_to_an_object_store_writes_the_same_bytes(tmp_path: Path) -> None:
    source = good_yolo_dataset(tmp_path / "in", 5)
    local = convert(yolo_card(), source, tmp_path / "out", "train")
    remote = convert(yolo_card(), source, "memory://test-convert-to-a-store", "train")
    assert remote == local
    assert [bytes(sample.image) for sample in open_split("memory://test-convert-to-a-store", "train")] == [
        bytes(sample.image) for sample in open_split(tmp_path / "out", "train")
    ]
