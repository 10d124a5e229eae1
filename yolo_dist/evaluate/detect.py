"""Objects in a user's images and videos: annotated copies and one JSON file of boxes."""

import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import chain, groupby, islice
from pathlib import Path
from typing import Any, TypeVar

import cv2
import numpy as np
import torch
from pydantic import Field

from yolo_dist.config import Config, ImageSize
from yolo_dist.darknet.network import Network
from yolo_dist.data.drawing import draw_boxes
from yolo_dist.data.image import Pixels, letterbox_into
from yolo_dist.errors import ImageError, InputError
from yolo_dist.evaluate.inference import Thresholds, find_objects, inference
from yolo_dist.evaluate.nms import Detections
from yolo_dist.evaluate.sources import (
    Source,
    count_frames,
    find_sources,
    frames_per_second,
    open_video,
    read_image,
    video_frames,
)
from yolo_dist.storage import location, publish

RESULT_FILE = "detections.json"

Progress = Callable[[int, int], None]
"""Called with (images and frames done, how many there are) after each batch."""

T = TypeVar("T")


class DetectConfig(Config):
    """How objects are looked for."""

    confidence: float = Field(default=0.25, ge=0, lt=1)
    """Least score of a detection."""
    nms_iou: float = Field(default=0.45, ge=0, le=1)
    """Boxes of one class that overlap by more than this are one object."""
    max_detections: int = Field(default=300, ge=1)
    """Kept of each image, the best ones."""
    multi_label: bool = False
    """Whether one box may be a detection of several classes."""
    image_size: ImageSize | None = None
    """(width, height) of the network's input in pixels; its cfg's by default."""
    batch_size: int = Field(default=8, ge=1)
    """Images or frames that go through the network together."""
    max_frames: int | None = Field(default=None, ge=1)
    """Frames of each video to look at; all by default."""


@dataclass(frozen=True)
class FrameDetections:
    """What was found on one image, or on one frame of a video (counted from 0); boxes in its pixels."""

    source: str
    frame: int | None
    width: int
    height: int
    detections: Detections

    def as_json(self, classes: Sequence[str]) -> dict[str, Any]:
        """A JSON object; boxes to a hundredth of a pixel."""
        found = self.detections
        boxes = [
            {"xyxy": [round(side, 2) for side in xyxy], "label": classes[label], "score": round(score, 4)}
            for xyxy, label, score in zip(
                found.xyxy.tolist(), found.labels.tolist(), found.scores.tolist(), strict=True
            )
        ]
        frame = {} if self.frame is None else {"frame": self.frame}
        return {"source": self.source, **frame, "width": self.width, "height": self.height, "boxes": boxes}


@dataclass
class DetectionReport:
    """What a call of `detect` did.

    Attributes:
        json_file: the file of all boxes.
        frames: one entry an image or frame, in the order of the sources.
        copies: the annotated images and videos.
        skipped: why a file was left out, one line each, naming it.
    """

    json_file: Path
    frames: list[FrameDetections] = field(default_factory=list)
    copies: list[Path] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)


def detect(
    network: Network,
    classes: Sequence[str],
    sources: Sequence[str | os.PathLike[str]],
    out: str | os.PathLike[str],
    config: DetectConfig | None = None,
    progress: Progress | None = None,
) -> DetectionReport:
    """Find objects in images, folders and videos.

    Writes an annotated copy of each (videos as mp4, of the same size and rate), and `detections.json`: a list of
    {source, frame (of videos), width, height, boxes: [{xyxy, label, score}]}. Every file is written completely or not
    at all. Single files that cannot be read are reported and skipped.

    Args:
        network: on any device; its mode is restored.
        classes: names by class number.
        sources: files and folders; folders with everything below them.
        out: folder of the results.
        config: how.
        progress: told after each batch.

    Raises:
        InputError: a source does not exist, or nothing in it can be read; nothing was written.
    """
    config, out = config or DetectConfig(), Path(out)
    files = find_sources(sources, out)
    detector = _Detector(network, classes, config)
    report = DetectionReport(out / RESULT_FILE)
    total = sum(count_frames(file.path, config.max_frames) if file.is_video else 1 for file in files)
    with inference(network):
        for is_video, group in groupby(files, key=lambda file: file.is_video):
            for _ in (_detect_in_videos if is_video else _detect_in_images)(detector, group, report):
                done = len(report.frames) + len(report.skipped)
                if progress:
                    progress(done, max(done, total))
    if not report.frames:
        raise InputError(f"nothing could be read: {report.skipped[0]}")
    entries = [frame.as_json(classes) for frame in report.frames]
    publish(location(report.json_file), json.dumps(entries, indent=1, ensure_ascii=False) + "\n")
    return report


@dataclass(frozen=True)
class _Detector:
    network: Network
    classes: Sequence[str]
    config: DetectConfig

    def find(self, images: Sequence[Pixels]) -> list[Detections]:
        """Objects on images of any sizes, uint8 RGB [h, w, 3], in their own pixels."""
        net = self.network.cfg.net
        width, height = self.config.image_size or (net.width, net.height)
        canvas = np.empty((len(images), height, width, 3), np.uint8)
        letterboxes = [letterbox_into(image, place) for image, place in zip(images, canvas, strict=True)]
        device = next(self.network.parameters()).device
        return find_objects(
            self.network,
            torch.from_numpy(canvas).permute(0, 3, 1, 2).to(device),
            letterboxes,
            Thresholds(
                self.config.confidence, self.config.nms_iou, self.config.max_detections, self.config.multi_label
            ),
        )

    def draw(self, image: Pixels, found: Detections) -> Pixels:
        """A copy in BGR, as OpenCV writes it."""
        drawn = draw_boxes(image, found.xyxy, found.labels, self.classes, found.scores)
        return cv2.cvtColor(drawn, cv2.COLOR_RGB2BGR).astype(np.uint8, copy=False)


def _detect_in_images(detector: _Detector, files: Iterable[Source], report: DetectionReport) -> Iterator[None]:
    """Look at images; yields after each batch."""
    for batch in _batches(files, detector.config.batch_size):
        images = []
        for file in batch:
            try:
                images.append((file, read_image(file.path)))
            except ImageError as error:
                report.skipped.append(str(error))
        found = detector.find([image for _, image in images]) if images else []
        for (file, image), detections in zip(images, found, strict=True):
            _, encoded = cv2.imencode(file.copy.suffix.lower(), detector.draw(image, detections))
            publish(location(file.copy), encoded.tobytes())
            report.copies.append(file.copy)
            report.frames.append(_frame(file, None, image, detections))
        yield


def _detect_in_videos(detector: _Detector, files: Iterable[Source], report: DetectionReport) -> Iterator[None]:
    """Look at videos; yields after each batch of frames."""
    for file in files:
        try:
            capture = open_video(file.path)
        except ImageError as error:
            report.skipped.append(str(error))
            continue
        frames = enumerate(video_frames(capture, detector.config.max_frames))
        batches = _batches(frames, detector.config.batch_size)
        first = next(batches, None)
        if first is None:
            report.skipped.append(f"{file.path}: no frame can be read; convert or remove it")
            continue
        height, width = first[0][1].shape[:2]
        with _video_writer(file.copy, frames_per_second(capture), (width, height)) as writer:
            for batch in chain([first], batches):
                found = detector.find([image for _, image in batch])
                for (number, image), detections in zip(batch, found, strict=True):
                    writer.write(detector.draw(image, detections))
                    report.frames.append(_frame(file, number, image, detections))
                yield
        report.copies.append(file.copy)


def _frame(file: Source, number: int | None, image: Pixels, detections: Detections) -> FrameDetections:
    height, width = image.shape[:2]
    return FrameDetections(str(file.path), number, width, height, detections)


@contextmanager
def _video_writer(path: Path, fps: float, size: tuple[int, int]) -> Iterator[cv2.VideoWriter]:
    """A video that appears at `path` once the block ends without an error; odd sizes lose a row or column."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.unfinished.mp4")
    writer = cv2.VideoWriter(str(unfinished), cv2.VideoWriter.fourcc(*"mp4v"), fps, size)
    if not writer.isOpened():
        raise InputError(f"{path}: cannot be written; check the output folder's permissions")
    try:
        yield writer
        writer.release()
        unfinished.replace(path)
    finally:
        writer.release()
        unfinished.unlink(missing_ok=True)


def _batches(items: Iterable[T], size: int) -> Iterator[list[T]]:
    iterator = iter(items)
    while batch := list(islice(iterator, size)):
        yield batch
