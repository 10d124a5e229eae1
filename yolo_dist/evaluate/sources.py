"""The images and videos that a user points at, and the names of their annotated copies."""

import os
from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import cv2

from yolo_dist.data.image import Pixels, decode_image, read_header
from yolo_dist.errors import ImageError, InputError

IMAGE_ENDINGS = (".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")
VIDEO_ENDINGS = (".avi", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".webm")
KNOWN = ", ".join(ending[1:] for ending in IMAGE_ENDINGS + VIDEO_ENDINGS)
USUAL_FPS = 25.0


@dataclass(frozen=True)
class Source:
    """One file to look at, and where its annotated copy goes."""

    path: Path
    copy: Path

    @property
    def is_video(self) -> bool:
        """Whether it is a video by its name."""
        return self.path.suffix.lower() in VIDEO_ENDINGS


def find_sources(places: Sequence[str | os.PathLike[str]], out: Path) -> list[Source]:
    """All images and videos at some places, folders with everything below them that is not hidden.

    Args:
        places: files and folders.
        out: folder of the copies. It may lie inside a place: its own files are no sources.

    Raises:
        InputError: a place does not exist or has no image, none of all can be read, or a copy would replace its
            original.
    """
    copies: dict[Path, Path] = {}
    for place in map(Path, places):
        root = place if place.is_dir() else place.parent
        for path in _files_at(place, out):
            copies[_free_name(out / path.relative_to(root), copies)] = path
    _require_one_that_can_be_read(list(copies.values()), ", ".join(map(str, places)))
    originals = {path.resolve(): path for path in copies.values()}
    for copy in copies:
        if original := originals.get(copy.resolve()):
            raise InputError(f"{original}: an annotated copy would replace it; give another folder for the output")
    return [Source(path, copy) for copy, path in copies.items()]


def read_image(path: Path) -> Pixels:
    """An image as it is meant to be seen (EXIF rotation applied), uint8 RGB [h, w, 3].

    Raises:
        ImageError: it cannot be read or decoded; names the file.
    """
    return decode_image(_bytes_of(path), source=str(path), upright=True)


def open_video(path: Path) -> cv2.VideoCapture:
    """A video, ready to be read.

    Raises:
        ImageError: it is none, or is damaged; names the file.
    """
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")  # FFmpeg would write its own complaints beside ours
    capture = cv2.VideoCapture(str(path))
    if not capture.isOpened():
        raise ImageError(f"{path}: not a video that can be read; convert or remove it")
    return capture


def video_frames(capture: cv2.VideoCapture, limit: int | None = None) -> Iterator[Pixels]:
    """The frames of a video, the first `limit` if given, uint8 RGB [h, w, 3]."""
    for _ in range(limit) if limit is not None else count():
        complete, frame = capture.read()
        if not complete:
            return
        yield cv2.cvtColor(frame, cv2.COLOR_BGR2RGB).astype("uint8", copy=False)


def count_frames(path: Path, limit: int | None = None) -> int:
    """Frames that a video says it has, at most `limit`; 0 if it cannot be opened or does not say."""
    try:
        frames = max(0, int(open_video(path).get(cv2.CAP_PROP_FRAME_COUNT)))
    except ImageError:
        return 0
    return frames if limit is None else min(frames, limit)


def frames_per_second(capture: cv2.VideoCapture) -> float:
    """As the video says; 25 where it does not."""
    said = float(capture.get(cv2.CAP_PROP_FPS))
    return said if 0 < said < 1000 else USUAL_FPS


def _files_at(place: Path, out: Path) -> list[Path]:
    if not place.exists():
        raise InputError(f"{place}: no such file or folder")
    files = _files_below(place, out) if place.is_dir() else [place]
    files = [path for path in files if path.suffix.lower() in IMAGE_ENDINGS + VIDEO_ENDINGS and path.is_file()]
    if not files:
        raise InputError(f"{place}: no image or video is there; known endings are {KNOWN}")
    return files


def _require_one_that_can_be_read(files: list[Path], places: str) -> None:
    problems = map(_problem, files)
    first = next(problems, None)
    if first is not None and all(problem is not None for problem in problems):
        raise InputError(first if len(files) == 1 else f"{places}: none of {len(files)} files can be read, as {first}")


def _files_below(folder: Path, out: Path) -> list[Path]:
    """What is not hidden and not below `out`, sorted."""
    paths = sorted(path for path in folder.rglob("*") if not path.resolve().is_relative_to(out.resolve()))
    return [path for path in paths if not any(part.startswith(".") for part in path.relative_to(folder).parts)]


def _problem(path: Path) -> str | None:
    """Why a file cannot be read, as far as its header tells."""
    try:
        if path.suffix.lower() in VIDEO_ENDINGS:
            open_video(path)
        else:
            read_header(_bytes_of(path), str(path))
    except ImageError as error:
        return str(error)
    return None


def _bytes_of(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ImageError(f"{path}: cannot be read: {error.strerror}; check its permissions") from None


def _free_name(path: Path, taken: Container[Path]) -> Path:
    """A name that no other copy has; videos are written as mp4."""
    path = path.with_suffix(".mp4") if path.suffix.lower() in VIDEO_ENDINGS else path
    numbered = (path.with_stem(f"{path.stem}-{number}") for number in count(2))
    return path if path not in taken else next(name for name in numbered if name not in taken)
