"""detect: images, folders and videos in; annotated copies and one JSON file out."""

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from yolo_dist.darknet.cfg import read_cfg
from yolo_dist.darknet.network import Network, initialize
from yolo_dist.darknet.weights import load_weights
from yolo_dist.darknet.zoo import zoo_cfg
from yolo_dist.errors import InputError
from yolo_dist.evaluate.detect import DetectConfig, detect

CLASSES = ("circle", "square", "triangle")
EVERYTHING = DetectConfig(confidence=0.0, max_detections=5, image_size=(64, 64))


@pytest.fixture(scope="module")
def untrained() -> Network:
    network = Network(zoo_cfg("yolov3-tiny", classes=3, width=0.125))
    initialize(network, seed=0)
    return network


@pytest.fixture(scope="module")
def yolo_fastest(shared_data: Path) -> Network:
    network = Network(read_cfg(shared_data / "weights" / "yolo-fastest-1.1.cfg"))
    load_weights(network, shared_data / "weights" / "yolo-fastest-1.1.weights")
    return network


@pytest.fixture(scope="module")
def coco_classes(shared_data: Path) -> list[str]:
    return (shared_data / "weights" / "coco.names").read_text().split("\n")[:80]


def noise(path: Path, width: int = 80, height: int = 50) -> Path:
    """An image file of noise."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    Image.fromarray(image).save(path)
    return path


def noise_video(path: Path, frames: int, width: int = 80, height: int = 64) -> Path:
    """A video file of noise, at 10 frames a second."""
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), 10.0, (width, height))
    random = np.random.default_rng(0)
    for _ in range(frames):
        writer.write(random.integers(0, 256, (height, width, 3), dtype=np.uint8))
    writer.release()
    return path


def pixels(path: Path) -> NDArray[np.uint8]:
    with Image.open(path) as image:
        return np.asarray(image)


def written(out: Path) -> list[str]:
    return sorted(path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file())


def boxes_in(report_file: Path) -> list[dict[str, Any]]:
    entries: list[dict[str, Any]] = json.loads(report_file.read_text())
    return entries


def test_a_folder_gives_a_copy_of_each_image_and_one_list_of_boxes(untrained: Network, tmp_path: Path) -> None:
    for name in ("b.png", "a.jpg", "deep/c.JPG"):
        noise(tmp_path / "in" / name)
    (tmp_path / "in" / "notes.txt").write_text("no image")
    report = detect(untrained, CLASSES, [tmp_path / "in"], tmp_path / "out", EVERYTHING)

    assert written(tmp_path / "out") == ["a.jpg", "b.png", "deep/c.JPG", "detections.json"]
    assert report.skipped == []
    entries = boxes_in(report.json_file)
    assert [Path(entry["source"]).name for entry in entries] == ["a.jpg", "b.png", "c.JPG"]
    for entry in entries:
        assert (entry["width"], entry["height"], len(entry["boxes"])) == (80, 50, 5)
        assert "frame" not in entry
        for box in entry["boxes"]:
            left, top, right, bottom = box["xyxy"]
            assert 0 <= left < right <= 80
            assert 0 <= top < bottom <= 50
            assert box["label"] in CLASSES


def test_boxes_are_drawn_on_the_copies_only(untrained: Network, tmp_path: Path) -> None:
    original = noise(tmp_path / "a.png")
    before = original.read_bytes()
    detect(untrained, CLASSES, [original], tmp_path / "out", EVERYTHING)
    drawn, plain = pixels(tmp_path / "out" / "a.png"), pixels(original)
    assert drawn.shape == plain.shape
    assert (drawn != plain).any()
    assert original.read_bytes() == before


def test_nothing_found_is_an_empty_list_and_an_unchanged_picture(untrained: Network, tmp_path: Path) -> None:
    original = noise(tmp_path / "a.png")
    report = detect(untrained, CLASSES, [original], tmp_path / "out", DetectConfig(confidence=0.99))
    assert boxes_in(report.json_file)[0]["boxes"] == []
    assert np.array_equal(pixels(tmp_path / "out" / "a.png"), pixels(original))


def test_photographs_are_seen_upright(untrained: Network, tmp_path: Path) -> None:
    image, exif = Image.new("RGB", (80, 50)), Image.Exif()
    exif[274] = 6
    image.save(tmp_path / "a.jpg", exif=exif)
    report = detect(untrained, CLASSES, [tmp_path / "a.jpg"], tmp_path / "out", EVERYTHING)
    assert (report.frames[0].width, report.frames[0].height) == (50, 80)
    assert pixels(tmp_path / "out" / "a.jpg").shape == (80, 50, 3)


def test_equal_names_from_two_folders_are_kept_apart(untrained: Network, tmp_path: Path) -> None:
    sources = [noise(tmp_path / folder / "a.png") for folder in "xyz"]
    detect(untrained, CLASSES, sources, tmp_path / "out", EVERYTHING)
    assert written(tmp_path / "out") == ["a-2.png", "a-3.png", "a.png", "detections.json"]


def test_results_inside_the_source_folder_are_no_sources_the_next_time(untrained: Network, tmp_path: Path) -> None:
    noise(tmp_path / "a.png")
    for _ in range(2):
        report = detect(untrained, CLASSES, [tmp_path], tmp_path / "out", EVERYTHING)
    assert [frame.source for frame in report.frames] == [str(tmp_path / "a.png")]


def test_single_bad_files_in_a_folder_are_reported_and_skipped(untrained: Network, tmp_path: Path) -> None:
    good = noise(tmp_path / "in" / "good.png")
    (tmp_path / "in" / "cut.png").write_bytes(good.read_bytes()[:500])
    (tmp_path / "in" / "text.jpg").write_text("not an image")
    (tmp_path / "in" / "text.mp4").write_text("not a video")
    report = detect(untrained, CLASSES, [tmp_path / "in"], tmp_path / "out", EVERYTHING)
    assert [Path(frame.source).name for frame in report.frames] == ["good.png"]
    assert sorted(Path(line.split(": ")[0]).name for line in report.skipped) == ["cut.png", "text.jpg", "text.mp4"]
    assert written(tmp_path / "out") == ["detections.json", "good.png"]


def _nothing(folder: Path) -> Path:
    return folder / "missing.png"


def _empty(folder: Path) -> Path:
    (folder / "empty").mkdir()
    return folder / "empty"


def _text(folder: Path) -> Path:
    (folder / "notes.txt").write_text("text")
    return folder / "notes.txt"


def _bad_image(folder: Path) -> Path:
    (folder / "bad.jpg").write_text("text")
    return folder / "bad.jpg"


def _bad_folder(folder: Path) -> Path:
    _bad_image(folder)
    (folder / "bad.mp4").write_text("text")
    return folder


@pytest.mark.parametrize(
    ("make", "message"),
    [
        pytest.param(_nothing, "missing.png: no such file or folder", id="missing"),
        pytest.param(_empty, "empty: no image or video is there", id="empty folder"),
        pytest.param(_text, "notes.txt: no image or video is there; known endings are bmp", id="unknown kind"),
    ],
)
def test_a_source_that_is_none_is_an_error_before_anything_is_written(
    untrained: Network, tmp_path: Path, make: Any, message: str
) -> None:
    (tmp_path / "bad").mkdir()
    good, bad = noise(tmp_path / "good" / "a.png"), make(tmp_path / "bad")
    with pytest.raises(InputError, match=message) as caught:
        detect(untrained, CLASSES, [good, bad], tmp_path / "out", EVERYTHING)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_of_several_files_one_that_cannot_be_read_is_skipped(untrained: Network, tmp_path: Path) -> None:
    """As a shell gives them: photos/*.jpg."""
    report = detect(untrained, CLASSES, [_bad_image(tmp_path), noise(tmp_path / "a.png")], tmp_path / "out", EVERYTHING)
    assert [Path(frame.source).name for frame in report.frames] == ["a.png"]
    assert [Path(line.split(": ")[0]).name for line in report.skipped] == ["bad.jpg"]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        pytest.param(_bad_image, "bad.jpg: not an image", id="damaged image"),
        pytest.param(_bad_folder, "none of 2 files can be read, as .*bad.jpg: not an image", id="all damaged"),
    ],
)
def test_sources_without_anything_readable_are_an_error_before_anything_is_written(
    untrained: Network, tmp_path: Path, make: Any, message: str, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "bad").mkdir()
    with pytest.raises(InputError, match=message) as caught:
        detect(untrained, CLASSES, [make(tmp_path / "bad")], tmp_path / "out", EVERYTHING)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()
    assert capfd.readouterr().err == ""


def test_an_original_is_never_replaced(untrained: Network, tmp_path: Path) -> None:
    original = noise(tmp_path / "a.png")
    before = original.read_bytes()
    with pytest.raises(InputError, match="give another folder"):
        detect(untrained, CLASSES, [original], tmp_path, EVERYTHING)
    assert original.read_bytes() == before


def test_a_video_keeps_its_size_rate_and_length(untrained: Network, tmp_path: Path) -> None:
    video = noise_video(tmp_path / "a.avi", frames=11)
    calls: list[tuple[int, int]] = []
    report = detect(
        untrained, CLASSES, [video], tmp_path / "out", EVERYTHING, progress=lambda *call: calls.append(call)
    )

    assert written(tmp_path / "out") == ["a.mp4", "detections.json"]
    copy = cv2.VideoCapture(str(tmp_path / "out" / "a.mp4"))
    assert copy.get(cv2.CAP_PROP_FPS) == pytest.approx(10)
    assert (copy.get(cv2.CAP_PROP_FRAME_WIDTH), copy.get(cv2.CAP_PROP_FRAME_HEIGHT)) == (80, 64)
    assert copy.get(cv2.CAP_PROP_FRAME_COUNT) == 11
    assert [entry["frame"] for entry in boxes_in(report.json_file)] == list(range(11))
    assert calls == [(8, 11), (11, 11)]


def test_a_batch_of_frames_finds_what_single_frames_find(untrained: Network, tmp_path: Path) -> None:
    video = noise_video(tmp_path / "a.mp4", frames=5)
    several, single = (
        detect(untrained, CLASSES, [video], tmp_path / f"{size}", EVERYTHING.model_copy(update={"batch_size": size}))
        for size in (4, 1)
    )
    for one, other in zip(several.frames, single.frames, strict=True):
        np.testing.assert_allclose(one.detections.xyxy, other.detections.xyxy, atol=1e-3)
        np.testing.assert_allclose(one.detections.scores, other.detections.scores, atol=1e-5)


def test_people_are_found_in_real_photographs(
    yolo_fastest: Network, coco_classes: list[str], shared_data: Path, tmp_path: Path
) -> None:
    images = sorted((shared_data / "coco" / "val2017").glob("*.jpg"))[:16]
    report = detect(yolo_fastest, coco_classes, images, tmp_path / "out", DetectConfig(image_size=(320, 320)))
    labels = [box["label"] for entry in boxes_in(report.json_file) for box in entry["boxes"]]
    assert len(report.copies) == len(report.frames) == 16
    assert "person" in labels


def test_a_bottle_is_found_in_a_real_video(
    yolo_fastest: Network, coco_classes: list[str], shared_data: Path, tmp_path: Path
) -> None:
    video = shared_data / "videos" / "bottle-detection.mp4"
    config = DetectConfig(max_frames=40)
    report = detect(yolo_fastest, coco_classes, [video], tmp_path / "out", config)
    labels = {box["label"] for entry in boxes_in(report.json_file) for box in entry["boxes"]}
    assert len(report.frames) == 40
    assert "bottle" in labels
