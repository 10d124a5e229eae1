"""Commands about data: what is good is converted, what is bad is counted and named, nothing is left half-written."""

import io
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import tiny
from command_line import done, refused, yolo_dist
from PIL import Image

from yolo_dist.data.card import card_names

CARD = """
name: pets
format: yolo_txt
classes: [cat, dog]
splits:
  train: {images: images, annotations: labels}
"""


def picture(mode: str = "RGB", orientation: int | None = None) -> bytes:
    file, exif = io.BytesIO(), Image.Exif()
    if orientation is not None:
        exif[0x0112] = orientation
    Image.new(mode, (48, 32), 7 if mode == "L" else (7,) * len(mode)).save(file, "JPEG", exif=exif)
    return file.getvalue()


@pytest.fixture
def pets(tmp_path: Path) -> Path:
    """Forty good images with a box each, and the card."""
    for folder in ("images", "labels"):
        (tmp_path / "source" / folder).mkdir(parents=True)
    for number in range(40):
        (tmp_path / "source" / "images" / f"{number:02d}.jpg").write_bytes(picture())
        (tmp_path / "source" / "labels" / f"{number:02d}.txt").write_text("0 0.5 0.5 0.5 0.5\n")
    (tmp_path / "pets.yaml").write_text(CARD)
    return tmp_path


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.write_shards(tmp_path_factory.mktemp("data"))


def convert(pets: Path, *options: str) -> list[object]:
    return ["convert", pets / "pets.yaml", pets / "source", pets / "shards", *options]


def flip_byte(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def test_datasets_lists_every_card() -> None:
    out = done("datasets").out
    assert all(name in out for name in card_names())
    assert [card["name"] for card in done("datasets", "--json").json()] == card_names()


def test_datasets_shows_one_card_with_its_classes_and_where_to_get_it(pets: Path) -> None:
    out = done("datasets", "bccd").out
    assert "RBC, WBC, Platelets" in out
    assert "https://github.com/" in out
    assert done("datasets", pets / "pets.yaml", "--json").json()["classes"] == ["cat", "dog"]


def test_a_dataset_that_does_not_exist_is_refused_with_the_closest() -> None:
    assert refused("datasets", "bcdd") == [
        "dataset bcdd: there is no such card; did you mean bccd? A path ends in .yaml"
    ]


def test_convert_takes_every_split_that_is_there(tmp_path: Path) -> None:
    card = tiny.write_card(tmp_path)
    counts = done("convert", card, "-", tmp_path / "shards", "--json").json()
    assert {split: manifest["images"] for split, manifest in counts.items()} == {"train": 12, "val": 6}
    assert done("shards", "info", tmp_path / "shards", "--json").json() == counts


def test_convert_goes_on_with_the_splits_that_are_left(tmp_path: Path) -> None:
    card = tiny.write_card(tmp_path)
    done("convert", card, "-", tmp_path / "shards", "--split", "train")
    outcome = done("convert", card, "-", tmp_path / "shards", "--json")
    assert list(outcome.json()) == ["val"]
    assert outcome.err == "already converted: train\n"


def test_convert_replaces_a_finished_conversion_only_when_told(pets: Path) -> None:
    done(*convert(pets))
    (error,) = refused(*convert(pets))
    assert error.startswith(f"{pets}/shards/train: is converted already")
    assert done(*convert(pets, "--overwrite", "--json")).json()["train"]["images"] == 40


def test_convert_never_replaces_a_users_own_folder(pets: Path) -> None:
    own = pets / "source" / "train" / "notes.txt"
    own.parent.mkdir()
    own.write_text("mine")
    (error,) = refused("convert", pets / "pets.yaml", pets / "source", pets / "source")
    assert error.startswith(f"{own.parent}: holds other files")
    assert own.read_text() == "mine"


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(picture("L"), id="grayscale"),
        pytest.param(picture("CMYK"), id="CMYK"),
        pytest.param(picture(orientation=6), id="EXIF rotation"),
    ],
)
def test_unusual_images_are_converted(pets: Path, content: bytes) -> None:
    (pets / "source" / "images" / "07.jpg").write_bytes(content)
    manifest = done(*convert(pets, "--json")).json()["train"]
    assert (manifest["images"], manifest["boxes"]["cat"], manifest["rejected"]) == (40, 40, {})


def _truncate(pets: Path) -> None:
    path = pets / "source" / "images" / "07.jpg"
    path.write_bytes(path.read_bytes()[:-200])


def _remove(pets: Path) -> None:
    images = pets / "source" / "images"
    (pets / "source" / "train.txt").write_text("\n".join(path.name for path in sorted(images.iterdir())))
    (pets / "pets.yaml").write_text(CARD.replace("labels}", "labels, list: train.txt}"))
    (images / "07.jpg").unlink()


def _label(text: str) -> Callable[[Path], None]:
    def write(pets: Path) -> None:
        (pets / "source" / "labels" / "07.txt").write_text(text)

    return write


@pytest.mark.parametrize(
    ("spoil", "reason", "place"),
    [
        pytest.param(_truncate, "image unreadable", "images/07.jpg", id="truncated image"),
        pytest.param(_remove, "image missing", "images/07", id="missing image"),
        pytest.param(_label("0 2.5 0.5 0.5 0.5\n"), "outside the image", "images/07.jpg", id="box outside"),
        pytest.param(_label("0 0.5 0.5 0 0.5\n"), "zero area", "labels/07.txt:1", id="box without area"),
        pytest.param(_label("0 0.5 0.5 0.5 0.5\n9 0.5 0.5 0.5 0.5"), "unknown class", "labels/07.txt:2", id="class"),
        pytest.param(_label("cat\n"), "bad number", "labels/07.txt:1", id="no numbers"),
    ],
)
def test_a_single_bad_image_or_box_is_counted_listed_and_skipped(
    pets: Path, spoil: Callable[[Path], None], reason: str, place: str
) -> None:
    spoil(pets)
    manifest = done(*convert(pets, "--json")).json()["train"]
    assert manifest["rejected"] == {reason: 1}
    (example,) = manifest["examples"][reason]
    assert place in example
    assert f"left out: 1 × {reason}, such as {example}" in done("shards", "info", pets / "shards").out


def test_more_than_five_percent_bad_is_refused_unless_allowed_and_leaves_nothing(pets: Path) -> None:
    for number in range(3):
        (pets / "source" / "images" / f"{number:02d}.jpg").write_bytes(b"no image")
    (error,) = refused(*convert(pets))
    assert "3 of 40 images are bad, more than 5%" in error
    assert "images/00.jpg" in error
    assert not (pets / "shards").exists()
    assert done(*convert(pets, "--max-bad", "0.1", "--json")).json()["train"]["images"] == 37


def test_a_split_that_fails_is_named_and_does_not_keep_the_others_from_being_converted(pets: Path) -> None:
    (pets / "pets.yaml").write_text(CARD + "  val: {images: bad, annotations: labels}\n  test: {images: images}\n")
    (pets / "source" / "bad").mkdir()
    (pets / "source" / "bad" / "00.jpg").write_bytes(b"no image")
    outcome = yolo_dist(*convert(pets, "--json"))
    assert outcome.code == 2
    assert list(outcome.json()) == ["train", "test"]
    (error,) = outcome.errors
    assert error.startswith("dataset pets, split val: 1 of 1 images are bad")
    assert sorted(path.name for path in (pets / "shards").iterdir()) == ["test", "train"]


def test_a_source_that_is_not_there_is_named(pets: Path) -> None:
    (error,) = refused("convert", pets / "pets.yaml", pets / "nowhere", pets / "shards")
    assert error.startswith(f"{pets}/nowhere/images: no such file or folder")
    assert not (pets / "shards").exists()


@pytest.mark.parametrize(
    ("card", "problems"),
    [
        pytest.param(CARD.replace("cat, dog", "cat, cat"), ["class 'cat' is listed twice"], id="a class twice"),
        pytest.param(CARD + "color: red\nurl: 5\n", ["url: Input should be", "color: unknown key"], id="two mistakes"),
        pytest.param("classes: [", ["while parsing"], id="no YAML"),
    ],
)
def test_a_wrong_card_is_refused_with_all_its_mistakes(pets: Path, card: str, problems: list[str]) -> None:
    (pets / "pets.yaml").write_text(card)
    errors = refused(*convert(pets))
    assert len(errors) == len(problems)
    assert all(problem in error for problem, error in zip(problems, errors, strict=True))


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        (["--split", "night"], "dataset pets: no split 'night'; choose from train"),
        (["--max-bad", "2"], "options: max_bad: Input should be less than or equal to 1 (got 2.0)"),
    ],
)
def test_wrong_options_of_convert_are_named(pets: Path, options: list[str], problem: str) -> None:
    assert refused(*convert(pets, *options)) == [problem]


def test_shards_info_counts_images_and_boxes(shards: Path) -> None:
    out = done("shards", "info", shards).out
    assert "train: 12 images in 1 shards" in out
    assert "val: 6 images in 1 shards" in out
    assert done("shards", "info", shards, "--split", "val").out.startswith("val: 6 images")


def test_shards_verify_passes_what_was_converted(shards: Path) -> None:
    assert done("shards", "verify", shards).out.splitlines() == [
        "train: 1 shards, 12 images, all hashes match",
        "val: 1 shards, 6 images, all hashes match",
    ]


def test_shards_verify_names_the_shard_with_a_flipped_byte(pets: Path) -> None:
    done(*convert(pets))
    shard = pets / "shards" / "train" / "shard-00000.arrow"
    flip_byte(shard)
    (error,) = refused("shards", "verify", pets / "shards")
    assert error.startswith(f"{shard}: sha256 is ")
    assert error.endswith("convert the split again")


def test_shards_verify_names_the_shard_that_is_missing(pets: Path) -> None:
    done(*convert(pets))
    shard = pets / "shards" / "train" / "shard-00000.arrow"
    shard.unlink()
    (error,) = refused("shards", "verify", pets / "shards")
    assert error.startswith(f"{shard}: sha256 is missing")


def test_shards_preview_draws_a_contact_sheet(shards: Path, tmp_path: Path) -> None:
    sheet = tmp_path / "sheets" / "val.png"
    assert "4 of 6 images" in done("shards", "preview", shards, "--split", "val", "--count", "4", "--out", sheet).out
    pixels = cv2.imread(str(sheet))
    assert pixels is not None
    assert len(np.unique(pixels)) > 50


@pytest.mark.parametrize("command", ["info", "verify", "preview"])
def test_shards_of_nothing_are_refused(command: str, tmp_path: Path, shards: Path) -> None:
    assert refused("shards", command, tmp_path / "nowhere", "--split", "train") == [
        f"{tmp_path}/nowhere: holds no converted split; run yolo-dist convert"
    ]
    assert refused("shards", command, shards, "--split", "night") == [
        f"{shards}: split 'night' is not converted, it holds train, val; run yolo-dist convert"
    ]


def test_a_destination_that_is_a_file_is_refused_in_one_line(pets: Path, tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("a file")
    (error,) = refused("convert", pets / "pets.yaml", pets / "source", tmp_path / "taken")
    assert error == f"{tmp_path}/taken: is a file, where a folder shall go; remove it or give another place"


def test_a_store_that_cannot_be_reached_is_named_with_what_to_set(pets: Path) -> None:
    """In a process of its own: connections to stores are kept for as long as one lives."""
    store = {"ENDPOINT_URL": "http://127.0.0.1:9", "ACCESS_KEY_ID": "a", "SECRET_ACCESS_KEY": "b"}
    environment = {**os.environ, **{f"AWS_{name}": value for name, value in store.items()}}
    command = [sys.executable, "-m", "yolo_dist", *map(str, convert(pets)[:-1]), "s3://bucket/pets"]
    outcome = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert outcome.returncode == 2
    assert outcome.stderr.startswith("error: s3://bucket/pets: cannot be used: Could not connect to the endpoint URL")
    assert "AWS_ENDPOINT_URL" in outcome.stderr
