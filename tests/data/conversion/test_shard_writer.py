"""Images on their way into shards: their bytes stay, what cannot be used is left out, what is in doubt is told."""

from pathlib import Path

import numpy as np
import pytest
from made_datasets import good_yolo_dataset, jpeg, voc_card, voc_dataset, yolo_card, yolo_dataset
from PIL import Image

from yolo_dist.data.conversion.convert import ConvertConfig, convert
from yolo_dist.data.shards import open_split

ALLOW_ALL = ConvertConfig(max_bad=1)


def turned(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


def test_image_bytes_pass_through_untouched(tmp_path: Path) -> None:
    source = good_yolo_dataset(tmp_path / "in", 10)
    convert(yolo_card(), source, tmp_path / "out", "train")
    for sample in open_split(tmp_path / "out", "train"):
        assert bytes(sample.image) == (source / "images" / f"{sample.image_id}.jpg").read_bytes()


def test_boxes_are_cut_at_the_border(tmp_path: Path) -> None:
    source = yolo_dataset(tmp_path / "in", {"a": jpeg(60, 40)}, {"a": "0 0 1 0.5 0.5"})
    convert(yolo_card(), source, tmp_path / "out", "train")
    assert open_split(tmp_path / "out", "train")[0].boxes.xyxy.tolist() == [[0, 30, 15, 40]]


@pytest.mark.parametrize("mode", ["L", "CMYK"])
def test_grey_and_cmyk_images_convert(tmp_path: Path, mode: str) -> None:
    source = yolo_dataset(tmp_path / "in", {"a": b""}, {"a": "0 0.5 0.5 0.5 0.5"})
    Image.new("RGB", (60, 40), (200, 10, 10)).convert(mode).save(source / "images" / "a.jpg")
    assert convert(yolo_card(), source, tmp_path / "out", "train").images == 1


def test_an_image_annotated_upright_but_stored_rotated_is_refused(tmp_path: Path) -> None:
    source = voc_dataset(tmp_path / "in", ["a", "b"], size=(60, 40))
    (source / "JPEGImages" / "b.jpg").write_bytes(jpeg(40, 60, exif=turned(6)))
    manifest = convert(voc_card(), source, tmp_path / "out", "train", ALLOW_ALL)
    (example,) = manifest.examples["image size differs from its annotation"]
    assert "annotated as 60×40, stored as 40×60 with EXIF orientation 6; save it upright" in example


def test_a_rotated_image_annotated_as_stored_is_kept_as_stored(tmp_path: Path) -> None:
    source = voc_dataset(tmp_path / "in", ["a"], size=(60, 40))
    (source / "JPEGImages" / "a.jpg").write_bytes(jpeg(60, 40, exif=turned(6)))
    convert(voc_card(), source, tmp_path / "out", "train")
    (sample,) = open_split(tmp_path / "out", "train")
    assert (sample.width, sample.height) == (60, 40)


@pytest.mark.parametrize(
    ("size", "orientation", "noted", "doubtful"),
    [
        pytest.param((60, 40), 6, True, 0, id="a size decides quarter turns"),
        pytest.param((60, 40), 3, True, 1, id="half a turn keeps the size"),
        pytest.param((40, 40), 6, True, 1, id="a square keeps its size"),
        pytest.param((60, 40), 1, True, 0, id="upright"),
        pytest.param((60, 40), 6, False, 1, id="no size is noted"),
        pytest.param((60, 40), 1, False, 0, id="upright, no size"),
    ],
)
def test_an_image_that_exif_turns_is_told_where_its_annotation_leaves_it_open(
    tmp_path: Path, size: tuple[int, int], orientation: int, noted: bool, doubtful: int
) -> None:
    if noted:
        card, source = voc_card(), voc_dataset(tmp_path / "in", ["a"], size=size)
        name = "JPEGImages/a.jpg"
    else:
        card, source = yolo_card(), yolo_dataset(tmp_path / "in", {"a": b""}, {"a": "0 0.5 0.5 0.5 0.5"})
        name = "images/a.jpg"
    (source / name).write_bytes(jpeg(*size, exif=turned(orientation)))
    manifest = convert(card, source, tmp_path / "out", "train")
    assert (manifest.images, manifest.turned, manifest.rejected) == (1, doubtful, {})
    told = f"{name}: EXIF orientation {orientation} was not applied; where its boxes are off, save it upright"
    assert manifest.examples == ({"turned by EXIF, annotated either way": (told,)} if doubtful else {})
    assert open_split(tmp_path / "out", "train").manifest == manifest
    assert ("turned" in manifest.to_json()) == bool(doubtful)


def test_a_tiff_that_opencv_would_turn_is_left_out(tmp_path: Path) -> None:
    source = yolo_dataset(tmp_path / "in", {"a": jpeg()}, {"a": ""})
    Image.new("RGB", (60, 40)).save(source / "images" / "b.tif", exif=turned(6))
    manifest = convert(yolo_card(), source, tmp_path / "out", "train", ALLOW_ALL)
    assert manifest.examples["image unreadable"] == ("images/b.tif: a TIFF with orientation 6; save it upright",)


def test_an_image_in_a_subfolder_is_named_with_it(tmp_path: Path) -> None:
    source = yolo_dataset(tmp_path / "in", {"1": jpeg()}, {"1": ""})
    (source / "images" / "x").mkdir()
    (source / "images" / "x" / "1.jpg").write_bytes(b"no image")
    manifest = convert(yolo_card(), source, tmp_path / "out", "train", ALLOW_ALL)
    assert manifest.examples["image unreadable"][0].startswith("images/x/1.jpg: ")


def test_a_suffix_in_capitals_is_one(tmp_path: Path) -> None:
    source = yolo_dataset(tmp_path / "in", {"a": jpeg()}, {"a": "0 0.5 0.5 0.5 0.5"})
    for name, capitals in (("images/a.jpg", "images/a.JPG"), ("labels/a.txt", "labels/a.TXT")):
        (source / name).rename(source / capitals)
    assert sum(convert(yolo_card(), source, tmp_path / "out", "train").boxes.values()) == 1


def test_a_png_that_is_damaged_inside_is_left_out(tmp_path: Path) -> None:
    source = yolo_dataset(tmp_path / "in", {}, {"a": "0 0.5 0.5 0.5 0.5", "b": "0 0.5 0.5 0.5 0.5"})
    (source / "images").mkdir()
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8))
    for name in ("a", "b"):
        noise.save(source / "images" / f"{name}.png")
    content = bytearray((source / "images" / "a.png").read_bytes())
    content[2000:3000] = bytes(1000)
    (source / "images" / "a.png").write_bytes(content)
    manifest = convert(yolo_card(), source, tmp_path / "out", "train", ALLOW_ALL)
    assert [sample.image_id for sample in open_split(tmp_path / "out", "train")] == ["b"]
    assert manifest.examples == {"image unreadable": ("images/a.png: cannot be decoded; replace or remove it",)}
