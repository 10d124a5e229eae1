"""The cards that come along, on real files in their datasets' own layouts."""

from pathlib import Path

import numpy as np
import pytest

from yolo_dist.data.card import find_card
from yolo_dist.data.convert import ConvertConfig, convert
from yolo_dist.data.image import decode_image
from yolo_dist.data.shards import open_split
from yolo_dist.errors import ConversionError


@pytest.mark.parametrize(
    ("name", "folder", "split", "images", "kept", "ignored", "rejected"),
    [
        ("bccd", "bccd", "train", 205, 2804, 0, {"zero area": 1}),
        ("bccd", "bccd", "val", 87, 1137, 0, {"zero area": 1}),
        ("coco2017", "coco", "train", 47, 518, 6, {}),
        ("coco2017", "coco", "val", 57, 510, 7, {}),
        ("visdrone", "visdrone", "val", 60, 4501, 163, {}),
        ("bdd100k", "bdd100k", "train", 60, 713, 0, {}),
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
    manifest = convert(find_card(name), shared_data / folder, tmp_path, split)
    assert (manifest.images, sum(manifest.boxes.values()), manifest.ignored) == (images, kept, ignored)
    assert manifest.rejected == rejected
    shards = open_split(tmp_path, split)
    shards.verify()
    for sample in shards[::20]:
        image = decode_image(sample.image)
        assert image.shape == (sample.height, sample.width, 3)
        assert (sample.boxes.xyxy >= 0).all()
        assert (sample.boxes.xyxy <= np.tile([sample.width, sample.height], 2)).all()


def test_dior_reports_the_images_its_lists_name_but_the_disk_does_not_hold(shared_data: Path, tmp_path: Path) -> None:
    card = find_card("dior")
    with pytest.raises(ConversionError, match=r"63 of 75 images are bad.*image missing"):
        convert(card, shared_data / "dior", tmp_path, "test")
    manifest = convert(card, shared_data / "dior", tmp_path, "test", ConvertConfig(max_bad=1))
    assert (manifest.images, manifest.rejected["image missing"]) == (12, 63)
