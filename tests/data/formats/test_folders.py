"""Folders of images, their lists, and folders with one annotation file an image."""

import os
from pathlib import Path

import pytest
from upath import UPath

from yolo_dist.data.annotations import BoxCollector, Boxes, Rejection
from yolo_dist.data.card import SplitSource
from yolo_dist.data.formats import folders
from yolo_dist.data.formats.folders import annotated_images
from yolo_dist.errors import AnnotationError, DataError


@pytest.mark.parametrize(
    ("entry", "name"),
    [
        ("0001", "0001"),
        ("0001.jpg", "0001"),
        ("./0001.jpg", "0001"),
        ("images/0001.jpg", "0001"),
        ("/home/me/data/images/0001.jpg", "0001"),
        ("0001  1", "0001"),
        ("0001 -1", "0001"),
        ("with space 1", "with space 1"),
        ("with space 1.jpg", "with space 1"),
        ("missing 1", "missing 1"),
        ("cat_images/0001.jpg", "cat_images/0001"),
        ("/home/cat_images/0001.jpg", "/home/cat_images/0001"),
        ("cat_images/0002.jpg", "cat_images/0002"),
        ("images/cat_images/0002.jpg", "cat_images/0002"),
    ],
)
def test_an_entry_of_a_list_is_the_image_it_names(tmp_path: Path, entry: str, name: str) -> None:
    (tmp_path / "list.txt").write_text(f"{entry}\n\n")
    files = {stem: UPath(f"{stem}.jpg") for stem in ("0001", "with space 1", "cat_images/0002")}
    source = SplitSource(images="images", list="list.txt")
    assert folders.listed_images(UPath(tmp_path), source, files) == [name]


def test_an_absolute_entry_is_found_below_a_root_that_is_the_image_folder(tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text(f"{tmp_path}/a/0001.jpg\n")
    source = SplitSource(images=".", list="list.txt")
    assert folders.listed_images(UPath(tmp_path), source, {"a/0001": UPath("0001.jpg")}) == ["a/0001"]


def test_files_behind_links_to_folders_count_and_a_circle_of_links_ends(tmp_path: Path) -> None:
    for folder in ("images", "elsewhere"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / f"{folder}.jpg").touch()
    (tmp_path / "images" / "more").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "images" / "again").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "back").symlink_to(tmp_path / "images")
    assert folders.files_below(UPath(tmp_path), "images") == [
        "again/elsewhere.jpg",
        "images.jpg",
        "more/elsewhere.jpg",
    ]


def test_a_name_in_another_encoding_is_told(tmp_path: Path) -> None:
    (tmp_path / os.fsdecode(b"caf\xe9.jpg")).touch()
    with pytest.raises(DataError, match=r"the name of 'caf\\udce9\.jpg' is not UTF-8; rename the file"):
        folders.files_below(UPath(tmp_path), ".")


def parse(content: bytes, place: str) -> tuple[Boxes, tuple[Rejection, ...]]:
    """One box for each character of the file; a question mark is damage."""
    if b"?" in content:
        raise AnnotationError(f"{place}: damaged")
    collector = BoxCollector()
    for _ in content:
        collector.add((0, 0, 1, 1), 0, False, place)
    return collector.finish()


def test_images_and_annotations_that_miss_each_other_are_both_reported(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "labels").mkdir()
    for name in ("a", "b", "c"):
        (tmp_path / "images" / f"{name}.jpg").touch()
    for name, content in (("a", "xx"), ("b", "?"), ("d", "x")):
        (tmp_path / "labels" / f"{name}.txt").write_text(content)
    found = annotated_images(UPath(tmp_path), SplitSource(images="images", annotations="labels"), ".txt", parse)
    problems = {image.image_id: image.problem.reason.value if image.problem else len(image.boxes) for image in found}
    assert problems == {"a": 2, "b": "annotation unreadable", "c": "annotation unreadable", "d": "image missing"}
